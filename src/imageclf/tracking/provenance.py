"""Provenance of a training: the machine, the git commit, and the patch from it to the source."""

import os
import platform
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from imageclf.files import atomic_writer
from imageclf.project.git import Commit, commit_in, git_if_any
from imageclf.training.device import hardware_name

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "torchvision", "numpy")
# dvc.lock is a result, which DVC writes while the pipeline runs; it is kept beside the patch.
PLACE = ("--", ".", ":(exclude)dvc.lock")
# Bytes of untracked files that a patch includes: sources and recipes, but not many images.
MOST_UNTRACKED = 10_000_000

# By tag: its attribute, and its parser, which returns None for an invalid value.
TAGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "device": ("device", str),
    "hardware": ("hardware", str),
    "processes": (
        "processes",
        lambda text: int(text) if re.fullmatch("[0-9]{1,6}", text) else None,
    ),
    "git_commit": ("commit", commit_in),
    "git_dirty": ("dirty", {"true": True, "false": False}.get),
}
VERSION = "version."


@dataclass(frozen=True)
class Provenance:
    """Where a training ran and from which source; None if unknown.

    The journal and MLflow hold it as tags: those of ``TAGS``, and ``version.torch`` and so on.

    Attributes:
        dirty: whether the source differed from the commit.
        device: as torch names it.
        hardware: the name of that device.
        processes: number that trained together.
        versions: of Python and of the libraries that compute, by name.
        refused: tags with invalid values.
    """

    commit: Commit | None = None
    dirty: bool | None = None
    device: str | None = None
    hardware: str | None = None
    processes: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self:
        """The provenance in tags; other tags are ignored."""
        read = {tag: (name, parse(tags[tag])) for tag, (name, parse) in TAGS.items() if tag in tags}
        versions = {tag.removeprefix(VERSION): tags[tag] for tag in tags if tag.startswith(VERSION)}
        refused = {tag: tags[tag] for tag, (_, value) in read.items() if value is None}
        return cls(**dict(read.values()), versions=versions, refused=refused)

    @staticmethod
    def names(tag: str) -> bool:
        """Whether a tag belongs to a provenance."""
        return tag in TAGS or tag.startswith(VERSION)

    def tags(self) -> dict[str, str]:
        """As tags; none for unknown values."""
        values = {tag: getattr(self, name) for tag, (name, _) in TAGS.items()}
        values |= {f"{VERSION}{name}": self.versions[name] for name in self.versions}
        texts = {True: "true", False: "false"}
        return {
            tag: texts[value] if isinstance(value, bool) else str(value)
            for tag, value in values.items()
            if value is not None
        }

    def updated(self, newer: "Provenance") -> "Provenance":
        """The newer provenance, completed from this one."""
        merged = self.from_tags(self.tags() | newer.tags())
        return replace(merged, refused={**self.refused, **newer.refused})

    @property
    def machine(self) -> dict[str, str]:
        """The tags on which the rounding of a training depends."""
        return replace(self, commit=None, dirty=None, processes=None).tags()


def this_machine(device: "torch.device", processes: int = 1) -> Provenance:
    """The provenance of a training in this process, without its source."""
    versions = {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
    return Provenance(
        device=str(device), hardware=hardware_name(device), processes=processes, versions=versions
    )


def record_source(patch: Path) -> Provenance:
    """The commit, and whether the source differs from it; the difference is written to ``patch``.

    ``git apply`` makes from the commit and the patch the source in the current folder. The patch
    includes untracked files, the smallest ones first, up to ``MOST_UNTRACKED`` bytes in all. There
    is no patch if nothing differs, and no provenance outside of git.
    """
    patch.unlink(missing_ok=True)
    head = git_if_any("rev-parse", "HEAD")
    if head is None:
        return Provenance()
    difference = _difference()
    if difference:
        with atomic_writer(patch) as file:
            file.write(difference)
    return Provenance(commit_in(head.decode().strip()), bool(difference))


def _difference() -> bytes | None:
    """The patch from the commit to the source; git's own index stays as it is."""
    untracked, left_out = _untracked()
    with TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        in_index = {"GIT_INDEX_FILE": str(index)}
        if place := git_if_any("rev-parse", "--git-path", "index"):
            with suppress(FileNotFoundError):  # no file was ever added
                # With its time, which git compares with the times of the files.
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
    """Untracked files that are not ignored: those that fit into a patch, and the others."""
    listed = git_if_any("ls-files", "--others", "--exclude-standard", "-z", *PLACE) or b""
    names = listed.split(b"\0")
    sizes = {name: os.lstat(name).st_size for name in names if name and not name.endswith(b"/")}
    taken, total = [], 0
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        total += sizes[name]
        if total <= MOST_UNTRACKED:
            taken.append(name)
    return taken, sorted(sizes.keys() - set(taken))
