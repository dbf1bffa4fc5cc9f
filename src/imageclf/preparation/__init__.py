"""From raw files to splits that can be trusted: blocks, duplicates, splits, the audit.

It may import ``data``, ``drawing``, ``system`` and ``project``.
"""
