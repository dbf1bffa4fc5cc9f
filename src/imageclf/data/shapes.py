"""The shape of an image: height x width x channels in memory, also for grey images.

In files and for exported models, grey images are height x width.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def shape_in_memory(stored: Sequence[int]) -> tuple[int, int, int]:
    """The shape (H, W, C) of an image whose stored shape is (H, W) or (H, W, C)."""
    height, width, channels = (*stored, 1)[:3]
    return height, width, channels


def stored_shape(image_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of an image in files and for exported models: (H, W) if it is grey."""
    return tuple(image_shape[:2] if image_shape[2] == 1 else image_shape)


def as_stored(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (uint8, N x H x W x C) in the shape of files and exported models."""
    return images.reshape(len(images), *stored_shape(images.shape[1:]))
