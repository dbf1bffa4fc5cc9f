"""Several people and machines: the lease, the runner, sharing, a tracking server of one's own.

It may import ``tracking``, ``training``, ``project`` and ``system``.
"""
