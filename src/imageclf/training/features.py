"""The features that a frozen backbone gives for the images, computed once for all heads."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0

from imageclf.data.prepared import SPLITS, Split

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def write_no_features(folder: Path) -> None:
    """Write empty files if nothing is trained on features. Needs no torch."""
    for split in SPLITS:
        np.save(folder / f"{split}.npy", np.empty((0, 0), np.float32))


def write_features(
    features_of: "Callable[[Tensor], Tensor]",
    device: "torch.device",
    split: Split,
    path: Path,
    advance: Callable[[int], None],
) -> None:
    """Write the features of a split to a .npy file: float32, one row per image.

    ``features_of`` computes them of images on the device. ``advance`` is called with the images of
    each batch.
    """
    from imageclf.data.batches import in_turn
    from imageclf.network.classifier import evaluation_batch

    size = evaluation_batch(split.images.shape[1:])
    with path.open("wb") as file:  # mapped to memory, a file would end the process on a full disk
        for images in in_turn(split, size, device):
            features = np.ascontiguousarray(features_of(images).cpu().numpy())
            if file.tell() == 0:
                header = header_data_from_array_1_0(features)
                write_array_header_1_0(file, header | {"shape": (len(split), features.shape[1])})
            file.write(features.data)
            advance(len(features))
