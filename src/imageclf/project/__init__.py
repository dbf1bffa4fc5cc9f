"""The project's folder: its paths, its git, its DVC and dvc.lock.

It knows nothing of images or networks, and may import ``system`` and the ground.
"""
