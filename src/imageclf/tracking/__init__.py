"""What a training says: terminal, journal, live reports; MLflow: runs, versions, the gate.

Only ``connection``, ``runs`` and ``registry`` import MLflow. It may import ``training``,
``project`` and ``drawing``.
"""
