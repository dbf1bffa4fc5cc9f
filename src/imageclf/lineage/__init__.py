"""What a model was made from: found, shown, published to MLflow, and rebuilt.

It may import ``team``, ``evaluation``, ``tracking``, ``inference`` and ``project``.
"""
