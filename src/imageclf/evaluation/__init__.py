"""Figures and pages about models: metrics, the report, two models compared, wrong labels.

It may import ``tracking``, ``training``, ``network``, ``data``, ``preparation``, ``project`` and
``drawing``.
"""
