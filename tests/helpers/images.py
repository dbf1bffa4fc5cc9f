"""Photographs, IDX files and small prepared splits."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imageclf.data.prepared import (
    Labels,
    Pixels,
    Split,
    images_path,
    load_split,
    shards_folder,
)
from imageclf.data.shapes import as_stored
from imageclf.data.shards import to_jpeg, write_shards


def write_idx(path: Path, values: NDArray[Any]) -> None:
    """Write integers of 0 to 255 as an IDX file."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def photograph(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    """A smooth scene in colours, another one for every seed."""
    spots = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)


def save_photographs(folder: Path, *names: str) -> None:
    """A different photograph under each name."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photograph(number).save(folder / name)


def sharded(folder: Path, name: str, images: Pixels, labels: Labels) -> Split:
    """A split whose images (uint8, N x H x W x C) are written as JPEG."""
    np.save(images_path(folder, name), as_stored(images[:0]))
    np.save(folder / f"{name}.labels.npy", labels)
    shards_folder(folder, name).mkdir()
    write_shards(map(to_jpeg, images), shards_folder(folder, name))
    return load_split(folder, name)


def learnable_split(count: int, seed: int, side: int = 8, classes: int = 4) -> Split:
    """Noise (uint8, count x side x side x 1) with a bright row that tells the class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    images = generator.integers(0, 120, (count, side, side, 1)).astype(np.uint8)
    images[np.arange(count), labels] += 100
    return Split(images, labels)
