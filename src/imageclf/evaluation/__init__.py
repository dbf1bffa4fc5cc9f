"""Figures and pages about a model: metrics on the test split, the report, wrong labels.

It may import ``training``, ``network``, ``data``, ``preparation``, ``project`` and ``drawing``.
"""
