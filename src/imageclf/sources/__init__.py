"""Where images and pretrained weights come from: published data sets, folders, archives, URLs.

It may import ``data``, ``network``, ``project`` and ``system``.
"""
