"""From a network and batches to a trained network: the loop and all that it is made of.

It may import ``network``, ``data``, ``project`` and ``system``; neither MLflow nor DVC.
"""
