"""From image files to blocks: images of one shape, decoded once, before their splits are known.

The split of an image can depend on its content, because duplicates go into one split. So images are
decoded into blocks in the order of their names, and ``dealing`` then deals them out to the splits.
Memory holds one image per worker and a few hundred bytes per file.

The blocks lie in a folder that is named by the digest of everything that determines them. After a
kill the stage uses finished blocks again: each one has a receipt with the digests of its images,
which are checked.
"""

import base64
import hashlib
import inspect
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.filesize import decimal

from imageclf.data import archives, image_files, opening, samples, shards
from imageclf.data import decoding as images
from imageclf.data.archives import Stored, read_tar
from imageclf.data.decoding import has_colour, read
from imageclf.data.opening import MAX_BYTES, ImageError
from imageclf.data.prepared import Pixels
from imageclf.data.shards import from_jpeg, to_jpeg
from imageclf.files import digest_of, sha256_file
from imageclf.preparation import hashing
from imageclf.preparation.hashing import THUMBNAIL, thumbnail
from imageclf.sections import Fitting, Transform
from imageclf.system.machine import check_space
from imageclf.system.progress import image_progress

if TYPE_CHECKING:
    import pandas as pd

MOST_IMAGES = 256  # in a block
BLOCK = 1 << 23  # bytes of pixels in a block, at most
FIRST_LOOK = 16  # files that mostly tell whether a set has colours
JPEG_SHARE = 0.4  # of the bytes of the pixels, at most, for photographs
# The modules that decide the bytes of a block; a test compares them with the imports.
DECIDING = (archives, hashing, image_files, images, opening, samples, shards)
CODE = (__name__, *(module.__name__ for module in DECIDING))
LIBRARIES = ("cykooz-resizer", "numpy", "pillow", "simplejpeg")
Map = Callable[..., Iterable[Any]]


class Block(NamedTuple):
    """A file of consecutive images, as pixels or as JPEG, and the bytes of each."""

    path: Path
    sizes: list[int]

    def contents(self, chosen: NDArray[np.bool_]) -> Iterator[bytes]:
        """The bytes of the chosen images."""
        with self.path.open("rb") as file:
            for wanted, end in zip(chosen, np.cumsum(self.sizes).tolist(), strict=True):
                if wanted:
                    yield file.read(end - file.tell())
                else:
                    file.seek(end)

    def content(self, number: int) -> bytes:
        """The bytes of one image."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(sum(self.sizes[:number]))
            return file.read(self.sizes[number])


@dataclass(frozen=True)
class Blocks:
    """Images of one shape, before their splits are drawn.

    Attributes:
        table: a row per file, in the order of the source: name, split (empty if it is to be drawn),
            class, height, width, sha256, pixels_sha256, verdict (ok, converted, unreadable) and a
            note on it. An unreadable file has no image.
        image_shape: (H, W, C).
        as_jpeg: whether the blocks hold JPEG files, and not pixels.
        blocks: the images in the order of the table.
        thumbnails: of the images (see ``hashing``); None for IDX files.
    """

    table: "pd.DataFrame"
    image_shape: tuple[int, int, int]
    as_jpeg: bool
    blocks: list[Block]
    thumbnails: Pixels | None = None

    def pixels(self, numbers: NDArray[np.int64]) -> Iterator[Pixels]:
        """The pixels of images by their numbers, in any order, one after the other."""
        first = np.cumsum([0, *(len(block.sizes) for block in self.blocks)])
        for number in numbers.tolist():
            place = int(np.searchsorted(first, number, side="right")) - 1
            content = self.blocks[place].content(number - int(first[place]))
            if self.as_jpeg:
                yield from_jpeg(content, self.image_shape)
            else:
                yield np.frombuffer(content, np.uint8).reshape(self.image_shape)


class Row(NamedTuple):
    """A row of the table, without split and class."""

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
        """The name of each file, and its bytes, or an error if it is too large."""
        with self.tar.open("rb") as tar:
            for file in self.files:
                if file.size > MAX_BYTES:
                    yield file.name, ImageError(None, f"larger than {decimal(MAX_BYTES)}")
                else:
                    yield file.name, os.pread(tar.fileno(), file.size, file.offset)


class _Job(NamedTuple):
    """A block to be made from the images of a part."""

    part: _Part
    image_shape: tuple[int, int, int]
    fitting: Fitting
    as_jpeg: bool
    path: Path

    @property
    def receipt(self) -> Path:
        return self.path.with_suffix(".json")


class _Made(NamedTuple):
    """The data on a block, and its receipt; ``sizes`` and ``digests`` are of the stored images."""

    rows: list[Row]
    sizes: list[int]
    digests: list[str]
    thumbnails: bytes

    @classmethod
    def of_receipt(cls, text: bytes) -> Self:
        rows, sizes, digests, thumbnails = json.loads(text)
        return cls([Row(*row) for row in rows], sizes, digests, base64.b64decode(thumbnails))

    def as_receipt(self) -> bytes:
        values = self._replace(thumbnails=base64.b64encode(self.thumbnails).decode())  # type: ignore[arg-type]
        return json.dumps(values).encode()


def make_blocks(
    tar: Path, transform: Transform, folder: Path, mapped: Map, console: Console
) -> Blocks:
    """Decode every image of a tar; the table tells which files are unreadable.

    Args:
        tar: uncompressed, see ``archives``; beside it is the ``source.json`` with its digest.
        transform: the section of the parameters.
        folder: for the blocks; those of other work are removed from it.
        mapped: ``map``, or that of a pool of processes.
        console: for a line about earlier work and, on a terminal, the progress.

    Raises:
        UserError: there is not enough space on the disk.
    """
    files = read_tar(tar)
    side, channels = transform.side, transform.channels
    if channels == "auto":
        channels = 3 if _any_colour(tar, files, mapped) else 1
    image_shape = (side, side, channels)
    as_jpeg = are_too_many(len(files), image_shape, transform)
    work = _work_folder(folder, tar, image_shape, transform.fitting, as_jpeg)
    parts = _parts(tar, files, max(1, min(MOST_IMAGES, BLOCK // prod(image_shape))))
    jobs = [
        _Job(part, image_shape, transform.fitting, as_jpeg, work / f"{number:06}")
        for number, part in enumerate(parts)
    ]
    left = sum(len(job.part.files) for job in jobs if not job.receipt.exists())
    if left < len(files):
        console.print(f"carrying on: {len(files) - left:,} of {len(files):,} files are done")
    # The missing blocks, and all images again in their splits.
    check_space(
        folder.parent,
        (left + len(files)) * image_bytes(image_shape, as_jpeg),
        "preparing the images",
        "make room or lower transform.image_size",
    )
    making = mapped(_make, jobs)
    import pandas as pd  # while the workers begin

    made = _collected(making, len(files), console)
    thumbnails = np.frombuffer(b"".join(some.thumbnails for some in made), np.uint8)
    return Blocks(
        pd.DataFrame([row for some in made for row in some.rows], columns=list(Row._fields)),
        image_shape,
        as_jpeg,
        [Block(job.path, some.sizes) for job, some in zip(jobs, made, strict=True)],
        thumbnails.reshape(-1, *THUMBNAIL, channels),
    )


def are_too_many(images: int, image_shape: tuple[int, int, int], transform: Transform) -> bool:
    """Whether the pixels of so many images exceed the limit, so that JPEG is kept instead."""
    return images * prod(image_shape) > transform.packed_limit_gb * 1e9


def image_bytes(image_shape: tuple[int, int, int], as_jpeg: bool) -> int:
    """The bytes of an image on the disk; for JPEG an upper bound for photographs."""
    return int(prod(image_shape) * (JPEG_SHARE if as_jpeg else 1))


def clear_blocks(folder: Path) -> None:
    """Remove the blocks of all work, finished or not."""
    shutil.rmtree(folder, ignore_errors=True)


def _any_colour(tar: Path, files: list[Stored], mapped: Map) -> bool:
    """Whether any file has colours; for most sets the first files tell."""
    parts = _parts(tar, files[FIRST_LOOK:], MOST_IMAGES)
    return _has_colour(_Part(tar, files[:FIRST_LOOK])) or any(mapped(_has_colour, parts))


def _has_colour(part: _Part) -> bool:
    return any(isinstance(content, bytes) and has_colour(content) for _, content in part.contents())


def _work_folder(
    folder: Path, tar: Path, image_shape: tuple[int, int, int], fitting: Fitting, as_jpeg: bool
) -> Path:
    """The folder of the blocks of this work; those of other work are removed."""
    determines = {
        "source": sha256_file(tar.with_name("source.json")),
        "images": [image_shape, fitting, as_jpeg],
        "code": {name: sha256_file(Path(inspect.getfile(sys.modules[name]))) for name in CODE},
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    work = folder / digest_of(determines)
    work.mkdir(parents=True, exist_ok=True)
    for other in folder.iterdir():
        if other != work:
            shutil.rmtree(other)
    return work


def _parts(tar: Path, files: list[Stored], count: int) -> list[_Part]:
    return [_Part(tar, files[start : start + count]) for start in range(0, len(files), count)]


def _collected(made: Iterable[_Made], files: int, console: Console) -> list[_Made]:
    collected = []
    with image_progress(console, files) as advance:
        for some in made:
            collected.append(some)
            advance(len(some.rows))
    return collected


def _make(job: _Job) -> _Made:
    """The block, from an earlier attempt or made now."""
    if (made := _finished(job)) is None:
        made = _decoded(job)
        job.receipt.write_bytes(made.as_receipt())
    return made


def _finished(job: _Job) -> _Made | None:
    """The data on a finished block; None if it is not whole."""
    try:
        made = _Made.of_receipt(job.receipt.read_bytes())
        images = Block(job.path, made.sizes).contents(np.ones(len(made.sizes), bool))
        digests = [hashlib.sha256(image).hexdigest() for image in images]
    # After a power failure a receipt may be empty or incomplete.
    except (OSError, ValueError):
        return None
    same = [row.name for row in made.rows] == [file.name for file in job.part.files]
    return made if same and digests == made.digests else None


def _decoded(job: _Job) -> _Made:
    """Write the block; return the rows of its files and the thumbnails of its images."""
    made = _Made([], [], [], b"")
    thumbnails = []
    with job.path.open("wb") as block:
        for name, content in job.part.contents():
            row, pixels = _read(name, content, job)
            made.rows.append(row)
            if pixels is not None:
                image = to_jpeg(pixels) if job.as_jpeg else pixels.data
                made.sizes.append(block.write(image))
                digest = hashlib.sha256(image).hexdigest() if job.as_jpeg else row.pixels_sha256
                made.digests.append(digest)
                thumbnails.append(thumbnail(pixels).tobytes())
    return made._replace(thumbnails=b"".join(thumbnails))


def _read(name: str, content: bytes | ImageError, job: _Job) -> tuple[Row, Pixels | None]:
    digest = ""
    try:
        if isinstance(content, ImageError):
            raise content
        digest = hashlib.sha256(content).hexdigest()
        decoded = read(content, job.image_shape, job.fitting)
    except ImageError as error:
        return Row(name, 0, 0, digest, "", "unreadable", error.reason), None
    pixels = decoded.pixels
    seen = hashlib.sha256(pixels.data).hexdigest()
    verdict = "converted" if decoded.changes else "ok"
    note = ", ".join(decoded.changes)
    return Row(name, decoded.height, decoded.width, digest, seen, verdict, note), pixels
