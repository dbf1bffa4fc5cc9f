"""Reports of a training to terminal, journal and MLflow; MLflow's runs and versions, the gate.

Only ``connection``, ``runs`` and ``registry`` import MLflow. It may import ``training``,
``project`` and ``drawing``.
"""
