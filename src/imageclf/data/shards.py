"""Images of a split as JPEG, one after the other in files of bounded length: its shards.

They take the place of packed pixels where those would be too many. Beside the shards,
``index.npy`` (int64, N x 3) tells of every image its shard, where it begins there and its bytes.
"""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import SupportsIndex, cast

import numpy as np
from numpy.typing import NDArray

from imageclf.files import UserError

# With 96 photographs of 224 pixels a sixth of the bytes of their pixels (of 64 pixels: 0.28), which
# are moved by 1.2 levels on average (1.9) and in 99.9 % by no more than 15.
QUALITY = 95
COLOURS = "444"  # at full resolution
SHARD = 1 << 27  # bytes that a shard does not exceed, unless one image does

Pixels = NDArray[np.uint8]


class JpegImages:
    """Images that are decoded when they are asked for.

    Indexed like an array, by a number, a slice or an array of numbers, they give uint8 pixels. A
    copy in another process reads the same files, so that nothing of them is sent.

    Attributes:
        shape: (N, H, W, C).
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
    """The image that ``to_jpeg`` was given, but for what JPEG loses."""
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
    """Decode into ``image``, which has the shape that the content must have."""
    import simplejpeg

    height, width, channels = image.shape
    found = simplejpeg.decode_jpeg(content, "RGB" if channels == 3 else "GRAY", buffer=image)
    if found.shape[:2] != (height, width):
        raise ValueError(f"an image of {found.shape[1]} x {found.shape[0]} pixels")
