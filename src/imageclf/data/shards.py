"""The shards of a split: files of bounded length that hold its images as JPEG.

They replace packed pixels if those would be too many. ``index.npy`` (int64, N x 3) gives for every
image the shard, the offset in it and the number of bytes.
"""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import SupportsIndex, cast

import numpy as np
from numpy.typing import NDArray

from imageclf.files import UserError

# For 96 photographs of 224 pixels: a sixth of the bytes of the pixels (0.28 at 64 pixels), which
# change by 1.2 levels on average (1.9) and 99.9 % of them by at most 15.
QUALITY = 95
COLOURS = "444"  # at full resolution
SHARD = 1 << 27  # bytes of a shard at most, unless a single image is larger

Pixels = NDArray[np.uint8]


class JpegImages:
    """Images (uint8, N x H x W x C) that are decoded when they are indexed like an array.

    A number, a slice or an array of numbers gives pixels. A copy in another process reads the same
    files, so no pixels are sent.
    """

    def __init__(self, folder: Path, image_shape: tuple[int, int, int]) -> None:
        self._folder = folder
        self._index = np.load(folder / "index.npy", mmap_mode="r")
        self.shape = (len(self._index), *image_shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[type["JpegImages"], tuple[Path, tuple[int, ...]]]:
        return JpegImages, (self._folder, self.shape[1:])

    def __getitem__(self, key: SupportsIndex | slice | NDArray[np.int64]) -> Pixels:
        """The pixels of one image (H x W x C) or of several (one more axis in front).

        Raises:
            UserError: a shard is missing or damaged.
        """
        rows = self._index[key]
        images = np.empty((*rows.shape[:-1], *self.shape[1:]), np.uint8)
        places = rows.reshape(-1, 3).tolist()
        for image, (shard, start, size) in zip(
            images.reshape(-1, *self.shape[1:]), places, strict=True
        ):
            path = shard_path(self._folder, shard)
            try:
                with path.open("rb", buffering=0) as file:
                    file.seek(start)
                    _decode(file.read(size), image)
            except (OSError, ValueError) as error:
                raise UserError(f"{path} is damaged ({error}): run `dvc repro`") from error
        return images


def to_jpeg(pixels: Pixels) -> bytes:
    """An image (uint8, H x W x C) as JPEG."""
    import simplejpeg

    colours = ("GRAY", "Gray") if pixels.shape[2] == 1 else ("RGB", COLOURS)
    return cast("bytes", simplejpeg.encode_jpeg(pixels, QUALITY, *colours))


def from_jpeg(content: bytes, image_shape: tuple[int, int, int]) -> Pixels:
    """The image (uint8) from the result of ``to_jpeg``, with the loss of JPEG."""
    image = np.empty(image_shape, np.uint8)
    _decode(content, image)
    return image


def write_shards(images: Iterable[bytes], folder: Path) -> None:
    """Write the shards and the index of JPEG images into an existing folder."""
    index, shard, end = array("q"), -1, SHARD
    file = None
    for content in images:
        if file is None or end + len(content) > SHARD:
            if file:
                file.close()
            shard, end = shard + 1, 0
            file = shard_path(folder, shard).open("wb")
        index.extend((shard, end, len(content)))
        end += file.write(content)
    if file:
        file.close()
    np.save(folder / "index.npy", np.array(index, np.int64).reshape(-1, 3))


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"{number:06}.jpegs"


def _decode(content: bytes, image: Pixels) -> None:
    """Decode into ``image``; the content must have its shape."""
    import simplejpeg

    height, width, channels = image.shape
    found = simplejpeg.decode_jpeg(content, "RGB" if channels == 3 else "GRAY", buffer=image)
    if found.shape[:2] != (height, width):
        raise ValueError(f"an image of {found.shape[1]} x {found.shape[0]} pixels")
