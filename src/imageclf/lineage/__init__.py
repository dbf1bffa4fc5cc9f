"""What a model was made from: found, told, published to MLflow, and made again.

It may import ``team``, ``tracking``, ``inference`` and ``project``.
"""
