"""A model outside training: exported files, and predictions from them.

Only ``export`` imports torch. It may import ``network``, ``data`` and ``project``.
"""
