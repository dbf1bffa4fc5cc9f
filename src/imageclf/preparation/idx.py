"""Data sets of IDX files: MNIST, Fashion-MNIST and the built-in digits."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imageclf.data.decoding import resized
from imageclf.data.prepared import Pixels
from imageclf.data.shards import to_jpeg
from imageclf.files import UserError
from imageclf.preparation.blocks import Block, Blocks, are_too_many
from imageclf.sections import Transform

if TYPE_CHECKING:
    import pandas as pd

DIGITS = tuple("0123456789")
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "digits": DIGITS,
    "mnist": DIGITS,
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}
# The parts of a source, and the split of each; an empty one is drawn.
PARTS = {"train": "", "t10k": "test"}


def block_of_idx(raw: Path, name: str, work: Path, transform: Transform) -> Blocks:
    """Resize the images of a raw folder, as ``blocks.make_blocks`` does with files.

    Args:
        raw: holds the IDX files, with or without the prefixes ``train-`` and ``t10k-``.
        name: the data set, a key of CLASS_NAMES.
        work: an existing folder for the block of images.
        transform: the section of the parameters; 3 channels repeat the greys as RGB.

    Raises:
        UserError: raw files are missing or damaged.
    """
    import pandas as pd

    whole = (raw / "images-idx3-ubyte").exists()
    parts = [_read_part(raw, part, split) for part, split in ({"": ""} if whole else PARTS).items()]
    side = transform.side
    images = np.concatenate([images for images, _ in parts])
    if images.shape[1:3] != (side, side):
        images = np.stack([resized(image, side, side) for image in images])
    if transform.channels == 3:
        images = np.repeat(images, 3, axis=3)
    table = pd.concat([table for _, table in parts], ignore_index=True)
    digests = [hashlib.sha256(image).hexdigest() for image in images]
    table["class"] = np.array(CLASS_NAMES[name])[table["label"]]
    table = table.drop(columns="label").assign(
        height=side, width=side, sha256=digests, pixels_sha256=digests
    )
    table = table.assign(verdict="ok", note="")
    as_jpeg = are_too_many(len(images), images.shape[1:], transform)
    with (work / "block").open("wb") as file:
        sizes = [file.write(to_jpeg(image) if as_jpeg else image.data) for image in images]
    return Blocks(table, images.shape[1:], as_jpeg, [Block(work / "block", sizes)])


def read_idx(path: Path) -> Pixels:
    """Read an IDX file of unsigned bytes.

    The format is two zero bytes, a type code, the number of dimensions, each dimension as a
    big-endian 32-bit integer, then the values (http://yann.lecun.com/exdb/mnist/).

    Raises:
        UserError: the file is missing or its length does not fit its header.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro fetch`") from None
    if content[:3] != b"\x00\x00\x08" or len(content) < 4:
        raise UserError(f"{path} is not an IDX file of bytes: delete it and run `dvc repro fetch`")
    header = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:header], dtype=">u4").tolist()
    values = np.frombuffer(content, dtype=np.uint8, offset=header)
    if values.size != np.prod(shape):
        raise UserError(f"{path} is truncated: delete it and run `dvc repro fetch`")
    return values.reshape(shape)


def _read_part(raw: Path, part: str, split: str) -> tuple[Pixels, "pd.DataFrame"]:
    """Images (N x H x W x 1), and a table of their names ``PART[INDEX]``, splits and labels."""
    import pandas as pd

    prefix = f"{part}-" if part else ""
    images = read_idx(raw / f"{prefix}images-idx3-ubyte")[..., None]
    labels = read_idx(raw / f"{prefix}labels-idx1-ubyte")
    if len(images) != len(labels):
        raise UserError(
            f"{raw}: {len(images)} images but {len(labels)} labels: run `dvc repro fetch`"
        )
    names = [f"{part}[{i}]" for i in range(len(images))]
    return images, pd.DataFrame({"name": names, "split": split, "label": labels})
