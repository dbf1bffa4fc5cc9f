"""Several people and machines: the lease, the runner, sharing, the project's tracking server.

It may import ``tracking``, ``training``, ``project`` and ``system``.
"""
