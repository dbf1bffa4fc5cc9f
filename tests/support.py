"""What several tests share: parameters with some values changed, and a small prepared data set."""

from pathlib import Path
from typing import Any

import numpy as np

from imageclf.datasets import Split
from imageclf.params import Params, check_params, read_yaml

ROOT = Path(__file__).parent.parent


def changed(**changes: Any) -> dict[str, Any]:
    """The values of params.yaml with some set by dotted path (``__`` for the dot)."""
    values: dict[str, Any] = read_yaml(ROOT / "params.yaml")
    for path, value in changes.items():
        *sections, leaf = path.split("__")
        place = values
        for section in sections:
            place = place[section]
        place[leaf] = value
    return values


def make_params(**changes: Any) -> Params:
    """Checked parameters that differ from params.yaml as ``changed`` says."""
    return check_params(changed(**changes), "test")


def learnable_split(count: int, seed: int, side: int = 8, classes: int = 4) -> Split:
    """Noise (uint8, count x side x side) with a bright row that tells the class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    images = generator.integers(0, 120, (count, side, side)).astype(np.uint8)
    images[np.arange(count), labels] += 100
    return Split(images, labels)
