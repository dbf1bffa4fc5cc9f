"""Images in a folder per class, or an archive or URL of one -> the raw folder.

The raw folder holds ``images.tar``, uncompressed: one file in DVC's cache for any number of images,
with the same bytes from a folder, a zip or a tar; and ``source.json``, which lists its content and
what was left out.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console

from imageclf.data.archives import write_tar
from imageclf.data.class_folders import IMAGES
from imageclf.files import UserError, atomic_folder, sha256_file, write_json
from imageclf.sources.catalog import DOWNLOADS, fetch_address, in_project
from imageclf.sources.collection import Collected, collect
from imageclf.sources.containers import opened
from imageclf.system.machine import check_space
from imageclf.system.progress import byte_progress

WORK = DOWNLOADS / "image_folder"
LEFT_OUT_LISTED = 20
NO_SPLITS: Mapping[str, str | list[str]] = MappingProxyType({})


def fetch_images(
    source: str,
    target: Path,
    console: Console,
    splits: Mapping[str, str | list[str]] = NO_SPLITS,
) -> Collected:
    """Write the raw folder from the user's images, which are only read.

    Args:
        source: a folder, a zip or tar file (relative to the root of the project), or the http
            address of an archive; its layout is one of those in ``layout``.
        target: the raw folder, which appears or is replaced only if everything is right.
        console: for the progress, on a terminal.
        splits: ``data.splits``.

    Raises:
        UserError: the source is not available, unsafe or damaged, or its folders are no classes.
    """
    if not source:
        raise UserError(
            "data.source in params.yaml is empty: name a folder of pictures, a folder per class in "
            "it, or a zip or tar file or the URL of one"
        )
    try:
        WORK.mkdir(parents=True, exist_ok=True)
        # After a lost connection the partial file stays for the next attempt.
        path = (
            fetch_address("data.source", source, WORK, console)
            if "://" in source
            else in_project(source)
        )
        try:
            with opened(path, WORK) as listing:
                collected = collect(listing, path, splits)
                check_space(
                    Path.cwd(), collected.bytes, "storing the images", "make room and try again"
                )
                with atomic_folder(target) as folder:
                    _store(collected, folder, console)
        finally:
            shutil.rmtree(WORK)
    except OSError as error:
        raise UserError(
            f"cannot read {source} or write {target}: {error.filename or ''} "
            f"{error.strerror or error}"
        ) from error
    return collected


def _store(collected: Collected, folder: Path, console: Console) -> None:
    with byte_progress(console) as progress:
        task = progress.add_task(IMAGES, total=collected.bytes)
        write_tar(
            collected.images, folder / IMAGES, lambda size: progress.advance(task, float(size))
        )
    write_json(folder / "source.json", _description(collected, folder / IMAGES))


def _description(collected: Collected, tar: Path) -> dict[str, Any]:
    """The content of source.json, which does not depend on the place of the images."""
    return {
        "name": "image_folder",
        "images": len(collected.images),
        "classes": collected.class_names,
        **({"layout": dict(collected.layout)} if collected.layout else {}),
        "files": {tar.name: {"bytes": tar.stat().st_size, "sha256": sha256_file(tar)}},
        "left_out": {
            "count": len(collected.left_out),
            "examples": collected.left_out[:LEFT_OUT_LISTED],
        },
    }
