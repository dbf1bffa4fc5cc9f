"""Where and from what a training runs: the machine, the git commit, and what differs from it."""

import os
import platform
import shutil
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from imageclf.files import atomic_writer
from imageclf.project.git import git_if_any
from imageclf.training.device import hardware_name

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "torchvision", "numpy")
# DVC writes dvc.lock while the pipeline runs. It is a result, and kept beside the patch.
PLACE = ("--", ".", ":(exclude)dvc.lock")
# Bytes of files unknown to git that a patch takes in: sources and recipes, but no heap of images.
MOST_UNTRACKED = 10_000_000


def machine_tags(device: "torch.device", processes: int = 1) -> dict[str, str]:
    """Device, hardware, number of processes, and versions of the libraries that compute."""
    tags = {"device": str(device), "hardware": hardware_name(device), "processes": str(processes)}
    tags |= {f"version.{name}": version(name) for name in LIBRARIES}
    return tags | {"version.python": platform.python_version()}


def record_source(patch: Path) -> dict[str, str]:
    """The tags ``git_commit`` and ``git_dirty``; what differs from the commit goes to ``patch``.

    The commit with the patch applied (``git apply``) is the source in the current folder, with
    the files that git neither knows nor ignores, of those the smallest up to ``MOST_UNTRACKED``
    bytes in all. Where nothing differs there is no patch; outside of git there are no tags.
    """
    patch.unlink(missing_ok=True)
    commit = git_if_any("rev-parse", "HEAD")
    if commit is None:
        return {}
    difference = _difference()
    if difference:
        with atomic_writer(patch) as file:
            file.write(difference)
    return {"git_commit": commit.decode().strip(), "git_dirty": str(bool(difference)).lower()}


def _difference() -> bytes | None:
    """What differs from the commit; git's own index stays as it is."""
    untracked, left_out = _untracked()
    with TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        in_index = {"GIT_INDEX_FILE": str(index)}
        if place := git_if_any("rev-parse", "--git-path", "index"):
            with suppress(FileNotFoundError):  # a repository in which nothing was ever added
                # With its time, by which git knows what may have changed in the same second.
                shutil.copy2(os.fsdecode(place.rstrip(b"\n")), index)
        add = ("add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
        git_if_any("--literal-pathspecs", *add, environment=in_index, feed=b"\0".join(untracked))
        plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-relative")
        prefixes = ("--src-prefix=a/", "--dst-prefix=b/")
        said = ("--binary", *plain, *prefixes, "HEAD", *PLACE)
        difference = git_if_any("diff", *said, environment=in_index)
    heading = b"".join(b"left out, too large: %s\n" % name for name in left_out)
    return heading + difference if difference else None


def _untracked() -> tuple[list[bytes], list[bytes]]:
    """Files that git neither knows nor ignores: those that fit into a patch, and the others."""
    listed = git_if_any("ls-files", "--others", "--exclude-standard", "-z", *PLACE) or b""
    names = listed.split(b"\0")
    sizes = {name: os.lstat(name).st_size for name in names if name and not name.endswith(b"/")}
    taken, total = [], 0
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        total += sizes[name]
        if total <= MOST_UNTRACKED:
            taken.append(name)
    return taken, sorted(sizes.keys() - set(taken))
