"""From blocks to splits, each with packed pixels in one file, or shards of JPEG."""

import os
from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap, read_array_header_1_0, read_magic
from numpy.typing import NDArray

from imageclf.data.prepared import SPLITS, images_path, pixel_counts, shards_folder
from imageclf.data.shapes import stored_shape
from imageclf.data.shards import from_jpeg, write_shards
from imageclf.preparation.blocks import Block, Blocks, Map

_Part = tuple[Block, NDArray[np.object_]]  # a block, and the split of each of its images


class _Deal(NamedTuple):
    """A block of pixels to be dealt out.

    ``splits`` holds the split of each image, ``rows`` the first free row of each split.
    """

    block: Path
    splits: NDArray[np.object_]
    rows: dict[str, int]
    image_shape: tuple[int, int, int]
    folder: Path


def deal_out(images: Blocks, splits: NDArray[np.object_], folder: Path, mapped: Map) -> Any:
    """Write the images of every split into an existing folder: packed, or in shards.

    ``splits`` holds the split of each image. The result is that of ``pixel_counts`` for the train
    split.
    """
    parts = list(_parts(images, splits))
    for split in SPLITS:
        count = 0 if images.as_jpeg else int((splits == split).sum())
        shape = (count, *stored_shape(images.image_shape))
        open_memmap(images_path(folder, split), "w+", np.uint8, shape)
        shards_folder(folder, split).mkdir()
    if images.as_jpeg:
        list(mapped(partial(_write, parts, folder), SPLITS))
        return sum(mapped(partial(_count, images.image_shape), parts))
    for split in SPLITS:
        write_shards([], shards_folder(folder, split))
    return sum(mapped(_deal, _deals(parts, images.image_shape, folder)))


def _parts(images: Blocks, splits: NDArray[np.object_]) -> Iterator[_Part]:
    """Every block with the splits of its images."""
    start = 0
    for block in images.blocks:
        yield block, splits[start : start + len(block.sizes)]
        start += len(block.sizes)


def _deals(parts: list[_Part], image_shape: tuple[int, int, int], folder: Path) -> Iterator[_Deal]:
    rows = dict.fromkeys(SPLITS, 0)
    for block, part in parts:
        yield _Deal(block.path, part, dict(rows), image_shape, folder)
        rows = {split: row + int((part == split).sum()) for split, row in rows.items()}


def _deal(deal: _Deal) -> NDArray[np.int64]:
    images = np.fromfile(deal.block, np.uint8).reshape(-1, *deal.image_shape)
    counts = pixel_counts(images[:0])
    for split, row in deal.rows.items():
        chosen = images[deal.splits == split]
        with images_path(deal.folder, split).open("r+b") as file:
            read_magic(file)
            read_array_header_1_0(file)
            file.seek(row * prod(deal.image_shape), os.SEEK_CUR)
            file.write(chosen.data)
        if split == "train":
            counts = pixel_counts(chosen)
    return counts


def _write(parts: list[_Part], folder: Path, split: str) -> None:
    contents = (jpeg for block, splits in parts for jpeg in block.contents(splits == split))
    write_shards(contents, shards_folder(folder, split))


def _count(image_shape: tuple[int, int, int], part: _Part) -> NDArray[np.int64]:
    block, splits = part
    images = [from_jpeg(content, image_shape) for content in block.contents(splits == "train")]
    return pixel_counts(np.array(images, np.uint8).reshape(-1, *image_shape))
