"""Images on disk and in memory: decoding, archives, folders per class, prepared arrays, batches.

What belongs here reads or writes images and knows nothing of splits, networks or training.
It may import ``system`` and the modules of the ground: ``files``, ``params``.
"""
