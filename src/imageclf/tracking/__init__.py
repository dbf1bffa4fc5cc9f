"""MLflow, and what a training says to it: the journal, live reports, runs, versions, the gate.

Only ``connection``, ``runs`` and ``registry`` import MLflow. It may import ``training``,
``project`` and ``drawing``.
"""
