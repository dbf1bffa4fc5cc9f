"""From image files to blocks of equal arrays, and from those to one packed file per split.

Which split an image belongs to can depend on what it shows, because duplicates stay on one side.
So images are decoded once, into blocks in the order of their names, and the blocks are then dealt
out to the splits. Memory holds one block per worker, however many images there are.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from rich.console import Console
from rich.filesize import decimal

from imageclf.archives import Stored, read_tar
from imageclf.datasets import SPLITS, Pixels, pixel_counts
from imageclf.duplicates import THUMBNAIL, thumbnail
from imageclf.files import UserError
from imageclf.images import Fit, ImageError, has_colour, read
from imageclf.params import Transform
from imageclf.progress import image_progress

if TYPE_CHECKING:
    import pandas as pd

MOST_IMAGES = 256  # in a block
BLOCK = 1 << 25  # bytes that a block does not exceed
MOST_BYTES = 1 << 28  # of a file: no image that fits the limit on pixels is larger
Map = Callable[..., Iterable[Any]]


@dataclass(frozen=True)
class Packed:
    """Images of one shape that wait for their splits.

    Attributes:
        table: a row per file, in the order of the source: name, split (empty where it is to be
            drawn), class, height, width, sha256, pixels_sha256, verdict (ok, converted,
            unreadable) and a note on it. What is unreadable has no image.
        image_shape: (H, W) or (H, W, 3).
        blocks: files that hold the images as they follow each other in the table.
        thumbnails: of the images (see ``duplicates``), where they are photographs.
    """

    table: "pd.DataFrame"
    image_shape: tuple[int, ...]
    blocks: list[Path]
    thumbnails: Pixels | None = None


class _Row(NamedTuple):
    name: str
    height: int
    width: int
    sha256: str
    pixels_sha256: str
    verdict: str
    note: str


class _Part(NamedTuple):
    """Some files of a tar."""

    tar: Path
    files: list[Stored]

    def contents(self) -> Iterator[tuple[str, bytes | ImageError]]:
        """Their names and bytes; instead of an enormous file, what is wrong with it."""
        with self.tar.open("rb") as tar:
            for file in self.files:
                if file.size > MOST_BYTES:
                    yield file.name, ImageError(None, f"larger than {decimal(MOST_BYTES)}")
                else:
                    yield file.name, os.pread(tar.fileno(), file.size, file.offset)


class _Job(NamedTuple):
    """A block to be made of a part's images."""

    part: _Part
    image_shape: tuple[int, ...]
    fit: Fit
    block: Path


class _Deal(NamedTuple):
    """A block to be dealt out: the split of each of its images, and the first free row of each."""

    block: Path
    splits: NDArray[np.object_]
    rows: dict[str, int]
    folder: Path


def pack_images(
    tar: Path, transform: Transform, work: Path, mapped: Map, console: Console
) -> Packed:
    """Decode every image of a tar; what cannot be read is told in the table.

    Args:
        tar: uncompressed, see ``archives``.
        transform: the section of the parameters.
        work: an existing folder for the blocks.
        mapped: ``map``, or that of a pool of processes.
        console: where the progress goes, on a terminal.

    Raises:
        UserError: the packed images would not fit on the disk.
    """
    import pandas as pd

    files = read_tar(tar)
    side, channels = transform.image_size, transform.channels
    if channels == "auto":
        channels = 3 if any(mapped(_has_colour, _parts(tar, files, MOST_IMAGES))) else 1
    image_shape = (side, side, 3) if channels == 3 else (side, side)
    _check_space(len(files) * prod(image_shape), work)
    parts = _parts(tar, files, max(1, min(MOST_IMAGES, BLOCK // prod(image_shape))))
    jobs = [
        _Job(part, image_shape, transform.fit, work / f"{number:06}")
        for number, part in enumerate(parts)
    ]
    rows: list[_Row] = []
    thumbnails = []
    with image_progress(console, len(files)) as advance:
        for some_rows, some_thumbnails in mapped(_pack, jobs):
            rows += some_rows
            thumbnails.append(some_thumbnails)
            advance(len(some_rows))
    table = pd.DataFrame(rows, columns=list(_Row._fields))
    return Packed(table, image_shape, [job.block for job in jobs], np.concatenate(thumbnails))


def deal_out(packed: Packed, splits: NDArray[np.object_], folder: Path, mapped: Map) -> Any:
    """Write ``SPLIT.images.npy`` for every split and remove the blocks.

    Args:
        packed: the images.
        splits: the split of each of them.
        folder: exists.
        mapped: as in ``pack_images``.

    Returns:
        How often each value stands in each channel of the train split, as ``pixel_counts``.
    """
    for split in SPLITS:
        shape = (int((splits == split).sum()), *packed.image_shape)
        open_memmap(folder / f"{split}.images.npy", "w+", np.uint8, shape)
    return sum(mapped(_deal, _deals(packed, splits, folder)))


def _deals(packed: Packed, splits: NDArray[np.object_], folder: Path) -> Iterator[_Deal]:
    rows, start = dict.fromkeys(SPLITS, 0), 0
    for block in packed.blocks:
        count = block.stat().st_size // prod(packed.image_shape)
        part = splits[start : start + count]
        yield _Deal(block, part, dict(rows), folder)
        start += count
        rows = {split: row + int((part == split).sum()) for split, row in rows.items()}


def _deal(deal: _Deal) -> NDArray[np.int64]:
    for split in SPLITS:
        packed = open_memmap(deal.folder / f"{split}.images.npy", "r+")
        images = np.fromfile(deal.block, np.uint8).reshape(-1, *packed.shape[1:])
        chosen = images[deal.splits == split]
        packed[deal.rows[split] :][: len(chosen)] = chosen
    deal.block.unlink()
    return pixel_counts(images[deal.splits == "train"])


def _parts(tar: Path, files: list[Stored], count: int) -> list[_Part]:
    return [_Part(tar, files[start : start + count]) for start in range(0, len(files), count)]


def _has_colour(part: _Part) -> bool:
    return any(isinstance(content, bytes) and has_colour(content) for _, content in part.contents())


def _pack(job: _Job) -> tuple[list[_Row], Pixels]:
    """Write the block; tell of every file, and give a thumbnail of every image."""
    images = np.empty((len(job.part.files), *job.image_shape), np.uint8)
    rows: list[_Row] = []
    thumbnails: list[Pixels] = []
    for name, content in job.part.contents():
        row, pixels = _decoded(name, content, job)
        rows.append(row)
        if pixels is not None:
            images[len(thumbnails)] = pixels
            thumbnails.append(thumbnail(pixels))
    images[: len(thumbnails)].tofile(job.block)
    return rows, np.array(thumbnails, np.uint8).reshape(-1, *THUMBNAIL, *job.image_shape[2:])


def _decoded(name: str, content: bytes | ImageError, job: _Job) -> tuple[_Row, Pixels | None]:
    digest = ""
    try:
        if isinstance(content, ImageError):
            raise content
        digest = hashlib.sha256(content).hexdigest()
        decoded = read(content, job.image_shape, job.fit)
    except ImageError as error:
        return _Row(name, 0, 0, digest, "", "unreadable", error.reason), None
    pixels = decoded.pixels
    seen = hashlib.sha256(pixels.data).hexdigest()
    verdict = "converted" if decoded.changes else "ok"
    note = ", ".join(decoded.changes)
    return _Row(name, decoded.height, decoded.width, digest, seen, verdict, note), pixels


def _check_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the packed images need {decimal(needed)}, but {folder.parent} has {decimal(free)} "
            "free: make room or lower transform.image_size"
        )
