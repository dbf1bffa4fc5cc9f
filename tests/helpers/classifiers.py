"""What is saved beside a classifier."""

from helpers.params import make_params
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
