"""Architectures by name, their first weights, and the classifier that is saved and loaded.

How a network learns is in ``training``. It may import only ``data`` and the ground modules.
"""
