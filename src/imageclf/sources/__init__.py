"""The sources of images and pretrained weights: published data sets, folders, archives, URLs.

It may import ``data``, ``network``, ``project`` and ``system``.
"""
