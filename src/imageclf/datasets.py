"""From raw images to packed arrays: splits, statistics, manifest and audit.

A prepared folder holds, per split, ``SPLIT.images.npy`` (uint8, N x H x W or N x H x W x C) and
``SPLIT.labels.npy`` (int64, N), memory-mapped by everyone downstream, and beside them
``classes.json``, ``stats.json``, ``digests.json`` and ``manifest.parquet``.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imageclf.files import UserError, read_json, sha256_file, write_json
from imageclf.params import Params

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "val", "test")
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
EXAMPLES_IN_AUDIT = 20

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Images (uint8, N x H x W or N x H x W x C) and their labels (int64, N)."""

    images: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


def prepare(params: Params, raw: Path, target: Path) -> dict[str, Any]:
    """Write the prepared folder from the raw one and return the audit as JSON values.

    The val split, and the test split where the source brings none, are drawn class by class with
    ``params.seed``. Mean and standard deviation come from the train split alone.

    Raises:
        UserError: raw files are missing or broken, or a class has too few images to be split.
    """
    class_names = CLASS_NAMES[params.data.name]
    splits, names = _split(params, _read_raw(raw))
    size = params.transform.image_size
    splits = {
        name: Split(_resized(split.images, size), split.labels) for name, split in splits.items()
    }
    for name, split in splits.items():
        np.save(target / f"{name}.images.npy", split.images)
        np.save(target / f"{name}.labels.npy", split.labels)
    write_json(target / "classes.json", class_names)
    write_json(target / "stats.json", pixel_stats(splits["train"].images))
    write_json(target / "digests.json", {name: split_digest(target, name) for name in SPLITS})
    manifest = _manifest(splits, names, class_names)
    manifest.to_parquet(target / "manifest.parquet", index=False)
    return audit(manifest, class_names)


def load_split(folder: Path, name: str) -> Split:
    """Memory-map one split of a prepared folder.

    Raises:
        UserError: the files are missing or do not belong together.
    """
    try:
        images = np.load(folder / f"{name}.images.npy", mmap_mode="r")
        labels = np.load(folder / f"{name}.labels.npy")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: the {name} split is unreadable ({error}): run `dvc repro`"
        ) from None
    if images.dtype != np.uint8 or len(images) != len(labels):
        raise UserError(f"{folder}: {name} images and labels do not match: run `dvc repro`")
    return Split(images, labels)


def load_class_names(folder: Path) -> list[str]:
    """The class names of a prepared folder; a label is an index into them."""
    return [str(name) for name in read_json(folder / "classes.json")]


def split_digest(folder: Path, name: str) -> str:
    """One sha256 for the images and labels of a split."""
    parts = [sha256_file(folder / f"{name}.{part}.npy") for part in ("images", "labels")]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


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


def stratified_choice(
    labels: Labels, fraction: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Mark ``fraction`` of the images of every class, at least one, drawn at random.

    Args:
        labels: int64, N.
        fraction: between 0 and 1.
        generator: the source of the draw.

    Returns:
        bool, N: True for the chosen ones.

    Raises:
        UserError: a class has a single image, which cannot stand on both sides.
    """
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(f"class {label} has a single image: no split can be drawn from it")
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        chosen[generator.permutation(members)[:count]] = True
    return chosen


def pixel_stats(images: Pixels) -> dict[str, list[float]]:
    """Mean and standard deviation per channel of pixels scaled to 0..1.

    Computed from the histogram of the 256 values: exact sums, one pass, no float copy.
    """
    channels = images[..., None] if images.ndim == 3 else images
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in range(channels.shape[-1]):
        share = np.bincount(channels[..., channel].ravel(), minlength=256) / channels[..., 0].size
        mean.append(float(share @ values))
        std.append(float(np.sqrt(share @ (values - mean[-1]) ** 2)))
    return {"mean": mean, "std": std}


def audit(manifest: "pd.DataFrame", class_names: Sequence[str]) -> dict[str, Any]:
    """What a user should know of the data: sizes, class balance, exact duplicates.

    Images are duplicates when all their pixels agree. ``repeats`` counts, within a split, the
    images that stand there a second or further time; ``leaks`` counts, for two splits, the images
    of the second that also stand in the first, and how many of those carry another label there.
    """
    import pandas as pd

    classes = pd.Categorical(manifest["class"], categories=class_names)
    balance = pd.crosstab(manifest["split"], classes, dropna=False)
    leaks = [
        _leak(manifest, first, second)
        for first, second in (("train", "val"), ("train", "test"), ("val", "test"))
    ]
    return {
        "images": {split: int((manifest["split"] == split).sum()) for split in SPLITS},
        "class_balance": {
            split: {name: int(balance.at[split, name]) for name in class_names} for split in SPLITS
        },
        "repeats": {
            split: int(manifest.loc[manifest["split"] == split, "sha256"].duplicated().sum())
            for split in SPLITS
        },
        "leaks": leaks,
    }


def _leak(manifest: "pd.DataFrame", first: str, second: str) -> dict[str, Any]:
    columns = ["name", "class", "sha256"]
    left = manifest.loc[manifest["split"] == first, columns].drop_duplicates("sha256")
    right = manifest.loc[manifest["split"] == second, columns]
    both = right.merge(left, on="sha256", suffixes=(f"_{second}", f"_{first}"))
    other_label = both[f"class_{first}"] != both[f"class_{second}"]
    return {
        "splits": [first, second],
        "images": len(both),
        "with_another_label": int(other_label.sum()),
        "examples": both.drop(columns="sha256").head(EXAMPLES_IN_AUDIT).to_dict(orient="records"),
    }


def _read_raw(raw: Path) -> dict[str, Split]:
    """The parts of the source by name: train and t10k, or a single unnamed one."""
    parts = (
        {"train": "train-", "t10k": "t10k-"}
        if (raw / "train-images-idx3-ubyte").exists()
        else {"": ""}
    )
    splits = {}
    for part, prefix in parts.items():
        images = read_idx(raw / f"{prefix}images-idx3-ubyte")
        labels = read_idx(raw / f"{prefix}labels-idx1-ubyte").astype(np.int64)
        if len(images) != len(labels):
            raise UserError(
                f"{raw}: {len(images)} images but {len(labels)} labels: run `dvc repro fetch`"
            )
        splits[part] = Split(images, labels)
    return splits


def _split(
    params: Params, raw: dict[str, Split]
) -> tuple[dict[str, Split], dict[str, NDArray[Any]]]:
    """Draw the missing splits; name each image ``PART[INDEX]`` by its place in the source."""
    generator = np.random.default_rng(params.seed)
    names = {
        part: np.array([f"{part}[{i}]" for i in range(len(split))]) for part, split in raw.items()
    }
    if "t10k" in raw:
        test, test_names = raw["t10k"], names["t10k"]
        rest, rest_names = raw["train"], names["train"]
    else:
        whole = raw[""]
        held_out = stratified_choice(whole.labels, params.transform.test_fraction, generator)
        test, test_names = _take(whole, held_out), names[""][held_out]
        rest, rest_names = _take(whole, ~held_out), names[""][~held_out]
    in_val = stratified_choice(rest.labels, params.transform.val_fraction, generator)
    return (
        {"train": _take(rest, ~in_val), "val": _take(rest, in_val), "test": test},
        {"train": rest_names[~in_val], "val": rest_names[in_val], "test": test_names},
    )


def _take(split: Split, chosen: NDArray[np.bool_]) -> Split:
    return Split(split.images[chosen], split.labels[chosen])


def _resized(images: Pixels, size: int) -> Pixels:
    if images.shape[1:3] == (size, size):
        return images
    from PIL import Image

    return np.stack(
        [
            np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
            for image in images
        ]
    )


def _manifest(
    splits: dict[str, Split], names: dict[str, NDArray[Any]], class_names: Sequence[str]
) -> "pd.DataFrame":
    import pandas as pd

    return pd.concat(
        [
            pd.DataFrame(
                {
                    "name": names[name],
                    "sha256": [
                        hashlib.sha256(image.tobytes()).hexdigest() for image in split.images
                    ],
                    "split": name,
                    "class": np.array(class_names)[split.labels],
                    "height": split.images.shape[1],
                    "width": split.images.shape[2],
                    "verdict": "ok",
                }
            )
            for name, split in splits.items()
        ],
        ignore_index=True,
    )
