"""Prepared images: a folder of packed arrays, which are read by memory mapping.

It holds, per split, ``SPLIT.images.npy`` (uint8, N x H x W for grey images, else N x H x W x 3) and
``SPLIT.labels.npy`` (int64, N); also ``classes.json``, ``stats.json``, ``digests.json`` and
``manifest.parquet``. If there are too many pixels, ``SPLIT.images.npy`` is empty and the folder
``SPLIT.shards`` holds all images as JPEG; otherwise that folder holds none. In memory every image
is H x W x C.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imageclf.data.shapes import as_stored, shape_in_memory
from imageclf.data.shards import JpegImages
from imageclf.files import UserError, read_json, sha256_file

SPLITS = ("train", "val", "test")

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


class Images(Protocol):
    """Images that need not be in memory (uint8, N x H x W x C).

    They are indexed by a number, a slice or an array of numbers.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """N, H, W and C."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Split:
    """Images, or for a head their features (float32, N x F), and their labels (int64, N)."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


def load_split(folder: Path, name: str) -> Split:
    """Open one split of a prepared folder: memory-mapped arrays, or JPEG images.

    Raises:
        UserError: the files are missing or do not belong together.
    """
    try:
        packed = np.load(images_path(folder, name), mmap_mode="r")
        labels = np.load(folder / f"{name}.labels.npy")
        image_shape = shape_in_memory(packed.shape[1:])
        images: Images = packed.reshape(len(packed), *image_shape)
        if len(labels) and not len(packed):
            images = JpegImages(shards_folder(folder, name), image_shape)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: the {name} split is unreadable ({error}): run `dvc repro`"
        ) from None
    if packed.dtype != np.uint8 or len(images) != len(labels):
        raise UserError(f"{folder}: {name} images and labels do not match: run `dvc repro`")
    return Split(images, labels)


def load_features(folder: Path, name: str, split: Split) -> Split:
    """Memory-map the features of a split from a folder of ``training.features``.

    Raises:
        UserError: they are missing, or not one row per image.
    """
    try:
        features = np.load(folder / f"{name}.npy", mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: {name}.npy is unreadable ({error}): run `dvc repro`") from None
    if len(features) != len(split):
        raise UserError(f"{folder}: {name}.npy is not of these images: run `dvc repro`")
    return Split(features, split.labels)


def images_path(folder: Path, name: str) -> Path:
    """The file of a split's packed images."""
    return folder / f"{name}.images.npy"


def shards_folder(folder: Path, name: str) -> Path:
    """The folder of a split's images as JPEG (see ``shards``)."""
    return folder / f"{name}.shards"


def load_class_names(folder: Path) -> list[str]:
    """The class names of a prepared folder; a label is an index into them."""
    return [str(name) for name in read_json(folder / "classes.json")]


def split_digest(folder: Path, name: str) -> str:
    """One sha256 for the images and labels of a split."""
    files = [
        images_path(folder, name),
        folder / f"{name}.labels.npy",
        *sorted(shards_folder(folder, name).glob("*")),
    ]
    return hashlib.sha256("".join(map(sha256_file, files)).encode()).hexdigest()


def pixel_counts(images: Pixels) -> NDArray[np.int64]:
    """The number of pixels with each of the 256 values, per channel: int64, C x 256."""
    from PIL import Image

    channels = images.shape[3]
    if not len(images):
        return np.zeros((channels, 256), dtype=np.int64)
    # As one tall image: Pillow counts many times faster than numpy.
    stored = np.ascontiguousarray(as_stored(images))
    tall = stored.reshape(-1, *stored.shape[2:])
    return np.array(Image.fromarray(tall).histogram(), dtype=np.int64).reshape(channels, 256)


def stats_of(counts: NDArray[np.int64]) -> dict[str, list[float]]:
    """Mean and standard deviation per channel of pixels scaled to 0..1, by ``pixel_counts``.

    The sums are exact, without a float copy of the images. The deviation of a channel with equal
    pixels is 1, a valid divisor, as in scikit-learn's StandardScaler.
    """
    values = np.arange(256) / 255
    mean, std = [], []
    for share in counts / counts.sum(axis=1, keepdims=True):
        mean.append(float(share @ values))
        std.append(float(np.sqrt(share @ (values - mean[-1]) ** 2)) or 1.0)
    return {"mean": mean, "std": std}
