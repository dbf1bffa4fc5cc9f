"""Provenance of a training: the machine and the git commit."""

import getpass
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

from imageclf.project.git import Commit, commit_in, git_if_any
from imageclf.training.device import hardware_name

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "torchvision", "numpy")
BOOLEANS = {"true": True, "false": False}

# By tag: its attribute, and its parser, which returns None for an invalid value.
TAGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "device": ("device", str),
    "hardware": ("hardware", str),
    "processes": (
        "processes",
        lambda text: int(text) if re.fullmatch("[0-9]{1,6}", text) else None,
    ),
    "git_commit": ("commit", commit_in),
    "git_dirty": ("dirty", BOOLEANS.get),
    "git_patch_complete": ("patch_complete", BOOLEANS.get),
    "mlflow.user": ("user", str),
}
VERSION = "version."


@dataclass(frozen=True)
class Provenance:
    """Where a training ran and from which source; None if unknown.

    The journal and MLflow hold it as tags: those of ``TAGS``, and ``version.torch`` and so on.

    Attributes:
        dirty: whether the source differed from the commit.
        patch_complete: whether the patch has all that differed; else the model cannot be rebuilt
            from it.
        user: who trained, by git's user.name or else the system's.
        device: as torch names it.
        hardware: the name of that device.
        processes: number that trained together.
        versions: of Python and of the libraries that compute, by name.
        refused: tags with invalid values.
    """

    commit: Commit | None = None
    dirty: bool | None = None
    patch_complete: bool | None = None
    user: str | None = None
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
        return replace(
            self, commit=None, dirty=None, patch_complete=None, user=None, processes=None
        ).tags()


def this_user() -> str | None:
    """The user's name: git's user.name, or else the system's; None where neither has one."""
    told = git_if_any("config", "user.name")
    if told and (name := told.decode(errors="replace").strip()):
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container that runs as a number
        return None


def this_machine(device: "torch.device", processes: int = 1) -> Provenance:
    """The provenance of a training in this process, without its source."""
    versions = {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}
    return Provenance(
        user=this_user(),
        device=str(device),
        hardware=hardware_name(device),
        processes=processes,
        versions=versions,
    )
