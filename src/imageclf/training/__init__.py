"""From a network and batches to a trained network: the loop and its parts.

It may import ``network``, ``data``, ``project`` and ``system``; neither MLflow nor DVC.
"""
