"""From the raw folder to the prepared one: sizes, splits, statistics, manifest."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from imageclf.data.class_folders import IMAGES, arrange, class_names
from imageclf.data.prepared import SPLITS, Labels, split_digest, stats_of
from imageclf.files import DISK_IS_FULL, UserError, flush_beside, write_json
from imageclf.params import Params
from imageclf.preparation.audit import too_many
from imageclf.preparation.blocks import Blocks, Map, make_blocks
from imageclf.preparation.dealing import deal_out
from imageclf.preparation.duplicates import same_images
from imageclf.preparation.idx import CLASS_NAMES, block_of_idx
from imageclf.preparation.splitting import Names, draw_splits, origins
from imageclf.sections import Fitting

if TYPE_CHECKING:
    import pandas as pd

# Beside the prepared folder, because DVC deletes that before it runs the stage.
BLOCKS = ".blocks"


def prepare(
    params: Params,
    raw: Path,
    target: Path,
    console: Console | None = None,
    mapped: Map = map,
) -> "tuple[pd.DataFrame, Iterable[str]]":
    """Write the prepared folder from the raw one.

    If more files are unreadable than ``data.max_bad_fraction`` allows, no arrays are written.

    Splits that the source does not have are drawn class by class with ``params.seed``. Images that
    show the same, or whose names agree in ``data.group_pattern``, go into one split. Mean and
    standard deviation are those of the train split.

    Args:
        params: ``seed``, ``data`` and ``transform``.
        raw: the output of the fetch stage.
        target: an empty folder; decoded images of the user are kept beside it, in ``BLOCKS``, for
            another attempt, until ``blocks.clear_blocks``.
        console: for the progress.
        mapped: ``map``, or that of a pool of processes; it changes no byte.

    Returns:
        The manifest, and an iterator over the splits' digests (see ``prepared.split_digest``),
        which a pool computes meanwhile; it is empty if no arrays were written.

    Raises:
        UserError: raw files are missing or damaged, classes have too few images, or there is not
            enough space.
    """
    try:
        if params.data.name == "image_folder":
            return _prepare_files(params, raw, target, console or Console(quiet=True), mapped)
        with TemporaryDirectory(dir=target) as work:
            images = block_of_idx(raw, params.data.name, Path(work), params.transform)
            return _finish(
                params, images, CLASS_NAMES[params.data.name], target, Fitting("fill"), mapped
            )
    except OSError as error:
        if error.errno not in DISK_IS_FULL:
            raise
        raise UserError(
            f"the disk of {target.parent} is full: make room and start again, it will carry on"
        ) from error


def _prepare_files(
    params: Params, raw: Path, target: Path, console: Console, mapped: Map
) -> "tuple[pd.DataFrame, Iterable[str]]":
    transform = params.transform
    images = make_blocks(raw / IMAGES, transform, target.parent / BLOCKS, mapped, console)
    places = arrange(images.table["name"])
    images.table["split"] = [place.split for place in places]
    images.table["class"] = [place.class_name for place in places]
    return _finish(params, images, class_names(places), target, transform.fitting, mapped)


def _finish(
    params: Params,
    images: Blocks,
    names: Sequence[str],
    target: Path,
    fitting: Fitting,
    mapped: Map,
) -> "tuple[pd.DataFrame, Iterable[str]]":
    """Draw the splits, and write them and their manifest."""
    import pandas as pd

    write_json(target / "classes.json", names)
    readable = images.table["verdict"] != "unreadable"
    if too_many((~readable).sum(), len(readable), params.data.max_bad_fraction):
        return images.table.assign(same_as=""), ()
    table = images.table[readable].reset_index(drop=True)
    labels = pd.Categorical(table["class"], names).codes.astype(np.int64)
    digests = table["pixels_sha256"].tolist()
    side = min(images.image_shape[:2])
    same = same_images(digests, images.thumbnails, side, images.pixels)
    table["same_as"] = table["name"].to_numpy()[same]
    groups = origins(table["name"], same, params.data.group_pattern)
    given: Names = table["split"].to_numpy(dtype=object)
    splits = draw_splits(given, labels, groups, names, params)
    _check_classes(labels[splits == "train"], names)
    counts = deal_out(images, splits, target, mapped)
    flush_beside([path for path in target.rglob("*") if path.is_file()])
    for split in SPLITS:
        np.save(target / f"{split}.labels.npy", labels[splits == split])
    split_digests = mapped(partial(split_digest, target), SPLITS)
    write_json(target / "stats.json", stats_of(counts) | fitting.stored())
    table["split"] = splits
    parts = [table[splits == split] for split in SPLITS]
    unreadable = images.table[~readable].assign(split="", same_as="")
    manifest = pd.concat([*parts, unreadable], ignore_index=True)
    manifest.to_parquet(target / "manifest.parquet", index=False)
    return manifest, split_digests


def _check_classes(labels: Labels, names: Sequence[str]) -> None:
    for label, count in enumerate(np.bincount(labels, minlength=len(names))):
        if not count:
            raise UserError(f"no image of the class {names[label]} in train can be read")
