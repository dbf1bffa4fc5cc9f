"""Integrity: whether files in the workspace and in DVC's cache have the md5s in dvc.lock."""

from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, StringConstraints, TypeAdapter, ValidationError
from rich.console import Console

from imageclf.project.folder import files_below
from imageclf.project.lock import Out, inside, lies_in, md5_of
from imageclf.system.progress import byte_progress


class _Entry(BaseModel):
    """A file in the listing of a folder, which DVC caches."""

    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    relpath: Annotated[str, AfterValidator(inside)]


@dataclass(frozen=True)
class Copy:
    """A file and the md5 that it should have.

    Attributes:
        out: to which it belongs.
        name: of the file in the workspace, relative to the project's folder; that of the out for
            the listing of a folder, and for a folder whose listing is not known.
        path: of this copy.
        md5: empty for a file that is not recorded.
        is_cached: whether it is an object of the cache, not a file of the workspace.
    """

    out: Out
    name: str
    path: Path
    md5: str
    is_cached: bool


def copies_of(out: Out, cache: Path, workspace: Path | None) -> list[Copy]:
    """Every file of an out in the cache, and in the workspace if one is given."""
    is_folder = out.md5.endswith(".dir")
    listing = _listing(out, cache) if is_folder else {"": out.md5}
    md5s = {str(Path(out.path, name)): md5 for name, md5 in (listing or {}).items()}
    found = [Copy(out, name, _object(cache, md5), md5, True) for name, md5 in md5s.items()]
    if is_folder:
        md5 = out.md5.removesuffix(".dir")
        found.append(Copy(out, out.path, _object(cache, out.md5), md5, True))
    if workspace is None:
        return found
    if listing is None:
        return [*found, Copy(out, out.path, workspace / out.path, out.md5, False)]
    here = [str(Path(out.path, name)) for name in files_below(workspace / out.path)]
    here_too = dict.fromkeys(here, "") | md5s
    return found + [Copy(out, name, workspace / name, md5, False) for name, md5 in here_too.items()]


def recorded_file(path: Path, outs: Iterable[Out], cache: Path) -> Path | None:
    """A copy of a file, in the cache or in the workspace, that is as dvc.lock records it, if any.

    Args:
        path: of the file, relative to the project's folder: of an out, or in one.
        outs: those in dvc.lock.
        cache: the folder of DVC's cache.
    """
    for out in outs:
        if lies_in(str(path), [out.path]):
            copies = [copy for copy in copies_of(out, cache, None) if copy.name == str(path)]
            found = [copy.path for copy in copies if md5_of(copy.path) == copy.md5]
            if found or not path.exists() or md5_of(Path(out.path)) != out.md5:
                return next(iter(found), None)
            return path
    return None


def _object(cache: Path, md5: str) -> Path:
    return cache / "files/md5" / md5[:2] / md5[2:]


def _listing(out: Out, cache: Path) -> dict[str, str] | None:
    """The md5s of the files of a folder by their paths in it; None if they are not known."""
    place = _object(cache, out.md5)
    if f"{md5_of(place)}.dir" != out.md5:
        return None
    try:
        entries = TypeAdapter(list[_Entry]).validate_json(place.read_bytes())
    except ValidationError:
        return None
    return {entry.relpath: entry.md5 for entry in entries}


def check(copies: Iterable[Copy], console: Console | None = None) -> tuple[list[Copy], list[Copy]]:
    """Hash copies; returns those that are not as recorded, and one of each file that has none.

    A bar on the console shows the progress, where there is one and it is a terminal.
    """
    copies = list(copies)
    total = sum(copy.path.stat().st_size for copy in copies if copy.path.exists())
    wrong, missing, there = list[Copy](), dict[str, Copy](), set[str]()
    with byte_progress(console or Console(file=StringIO())) as progress:
        task = progress.add_task(f"{len(copies):,} files", total=total)
        for copy in copies:
            found = md5_of(copy.path, lambda count: progress.advance(task, float(count)))
            if found is None:
                missing.setdefault(copy.name, copy)
            else:
                there.add(copy.name)
                wrong += [copy] if found != copy.md5 else []
    return wrong, [copy for name, copy in missing.items() if name not in there]
