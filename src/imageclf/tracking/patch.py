"""The commit of a training, and the patch from it to the source."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from imageclf.files import UserError, atomic_writer, read_yaml
from imageclf.project.folder import DVC_YAML, LOCK, PARAMS
from imageclf.project.git import commit_in, git_if_any
from imageclf.text import printable
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.secret_scan import secret_in_patch

# Bytes of untracked files that a patch includes in all, and of the change of a tracked one.
MOST_BYTES = 1_000_000
TOO_LARGE = "too large"
LEFT_OUT = "left out: "  # begins the lines above the patch
SHOWN = 10  # files, in a line
PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-relative", "--no-renames")
PREFIXES = ("--src-prefix=a/", "--dst-prefix=b/")
# dvc.lock is a result, which DVC writes while the pipeline runs; it is kept beside the patch.
PLACE = ("HEAD", "--", ".", f":(exclude){LOCK}")


@dataclass(frozen=True)
class _Changes:
    """A patch, the files in it, and for each file that is left out the reason."""

    patch: bytes
    taken: list[str]
    left_out: Mapping[str, str]


def record_source(path: Path) -> Provenance:
    """The commit, and whether the source differs from it; the patch is written to ``path``.

    ``git apply`` makes from the commit and the patch the source in the current folder. The patch
    includes changed files that git tracks, and the untracked ones that the stages can read. What
    is too large or seems to hold a secret is left out. A line on stderr names both.

    There is no patch if nothing differs, and no provenance outside of git.
    """
    path.unlink(missing_ok=True)
    head = git_if_any("rev-parse", "HEAD")
    if head is None:
        return Provenance()
    changes = _changes()
    if changes.patch or changes.left_out:
        lines = [f"{LEFT_OUT}{printable(name)} ({why})" for name, why in changes.left_out.items()]
        with atomic_writer(path) as file:
            file.write("".join(f"{line}\n" for line in lines).encode() + changes.patch)
        for line in [f"{path.name}: {_several(changes.taken)}", *lines]:
            print(printable(line), file=sys.stderr, flush=True)
    return Provenance(
        commit_in(head.decode().strip()),
        dirty=path.exists(),
        patch_complete=not changes.left_out,
    )


def split_patch(content: bytes) -> tuple[list[str], bytes]:
    """The files that a patch leaves out, each with the reason, and the patch for `git apply`."""
    heading, mark, rest = content.partition(b"diff --git ")
    lines = heading.decode(errors="replace").splitlines()
    names = [line.removeprefix(LEFT_OUT) for line in lines if line.startswith("left out")]
    return names, mark + rest


def _several(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more


def _changes() -> _Changes:
    """The changes from the commit to the source; git's own index stays as it is."""
    untracked, left_out = _untracked()
    with _index_with(untracked) as environment:

        def diff(*arguments: str) -> bytes:
            return git_if_any("diff", *PLAIN, *arguments, environment=environment) or b""

        names = [
            os.fsdecode(name) for name in diff("--name-only", "-z", *PLACE).split(b"\0") if name
        ]
        for name in names:
            change = diff("--text", "HEAD", "--", f":(top,literal){name}")
            if reason := _reason_against(name, change):
                left_out[name] = reason
        outside = [f":(exclude,top,literal){name}" for name in left_out]
        patch = diff("--binary", *PREFIXES, *PLACE, *outside)
    taken = [name for name in names if name not in left_out]
    return _Changes(patch, taken, dict(sorted(left_out.items())))


def _reason_against(name: str, change: bytes) -> str | None:
    """Why a change is left out of the patch; None if it is taken."""
    if len(change) > MOST_BYTES:
        return TOO_LARGE
    kind = secret_in_patch(name, change.decode(errors="replace"))
    return f"it looks like a secret: {kind}" if kind else None


@contextmanager
def _index_with(untracked: list[bytes]) -> Iterator[dict[str, str]]:
    """The environment in which git compares with a copy of its index that names these files."""
    with TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        environment = {"GIT_INDEX_FILE": str(index)}
        if place := git_if_any("rev-parse", "--git-path", "index"):
            with suppress(FileNotFoundError):  # no file was ever added
                # With its time, which git compares with the times of the files.
                shutil.copy2(os.fsdecode(place.rstrip(b"\n")), index)
        add = ("add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
        git_if_any("--literal-pathspecs", *add, environment=environment, feed=b"\0".join(untracked))
        yield environment


def _untracked() -> tuple[list[bytes], dict[str, str]]:
    """Untracked files that the stages can read: those that fit into a patch, and the others."""
    command = ("ls-files", "--others", "--exclude-standard", "-z", "--", *_readable_places())
    names = (git_if_any("--literal-pathspecs", *command) or b"").split(b"\0")
    sizes = {name: os.lstat(name).st_size for name in names if name and not name.endswith(b"/")}
    taken, total = [], 0
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        total += sizes[name]
        if total <= MOST_BYTES:
            taken.append(name)
    return taken, {os.fsdecode(name): TOO_LARGE for name in sorted(sizes.keys() - set(taken))}


def _readable_places() -> list[str]:
    """The files and folders that a stage can read: sources, recipes, and the deps in dvc.yaml."""
    try:
        stages = read_yaml(Path(DVC_YAML))["stages"].values()
    except UserError:  # as in a folder that is not the project's
        stages = []
    deps = [PurePosixPath(dep) for stage in stages for dep in stage.get("deps", [])]
    inside = [str(dep) for dep in deps if not dep.is_absolute() and ".." not in dep.parts]
    return ["src", "stages", "recipes", PARAMS, DVC_YAML, *inside]
