"""What a frozen backbone makes of the images: features, computed once for every head to come."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.format import open_memmap

from imageclf.datasets import Pixels

if TYPE_CHECKING:
    from imageclf.classifier import Classifier

SPLITS = ("train", "val")


def write_no_features(folder: Path) -> None:
    """Write empty files where nothing is to be trained on features. Needs no torch."""
    for split in SPLITS:
        np.save(folder / f"{split}.npy", np.empty((0, 0), np.float32))


def write_features(
    classifier: "Classifier", images: Pixels, path: Path, advance: Callable[[int], None]
) -> None:
    """Write what the backbone makes of a split: float32, one row per image.

    Args:
        classifier: on the device that computes.
        images: uint8, N x H x W [x C].
        path: of the .npy file.
        advance: called with the number of images after each batch.
    """
    import torch

    from imageclf.classifier import evaluation_batches

    classifier.eval()
    device = classifier.scale.device
    for batch in evaluation_batches(len(images), images.shape[1:]):
        with torch.inference_mode():
            features = classifier.features(torch.tensor(images[batch], device=device)).cpu().numpy()
        if batch.start == 0:
            rows = open_memmap(path, "w+", np.float32, (len(images), features.shape[1]))
        rows[batch] = features
        advance(len(features))
