"""Images on disk and in memory: decoding, archives, folders per class, prepared arrays, batches.

Its modules read or write images, and know nothing of networks or training. It may import ``system``
and the ground modules ``files`` and ``params``.
"""
