"""What is saved beside a classifier."""

import torch

from helpers.params import make_params
from imageclf.data.prepared import Pixels
from imageclf.evaluation.calibration import fit_novelty
from imageclf.inference.novelty import Novelty, statistics
from imageclf.network.classifier import Classifier, to_pixels
from imageclf.network.description import Description

STATS = {"mean": [0.3], "std": [0.2]}


def description(**changes: object) -> Description:
    values = {
        "fingerprint": "f" * 64,
        "class_names": [str(digit) for digit in range(10)],
        "image_shape": [28, 28],
        "fit": "fill",
        **STATS,
        "model": make_params().model,
        "data": {"train": "a" * 64, "val": "b" * 64},
        "weights": {},
        "epoch": 3,
    }
    return Description(**values | changes)


def novelty_of(classifier: Classifier, images: Pixels) -> Novelty:
    """Tells images (uint8, N x H x W x C) from these."""
    known = torch.from_numpy(images)
    with torch.no_grad():
        return fit_novelty(classifier.features(known), statistics(to_pixels(known)))
