"""The project's folder: its paths, its git, its DVC and dvc.lock.

Nothing here knows of images or networks. It may import ``system`` and the ground.
"""
