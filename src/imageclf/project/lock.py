"""Reading dvc.lock: what each stage read and wrote, by md5."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from imageclf.files import UserError, parse_yaml
from imageclf.project.folder import LOCK, files_below

# Called with the number of bytes read since its last call.
Advance = Callable[[int], object]
CHUNK = 1 << 20  # bytes read at a time
_md5 = partial(hashlib.md5, usedforsecurity=False)


@dataclass(frozen=True)
class Out:
    """A file or folder that a stage wrote.

    Attributes:
        path: relative to the project's folder.
        md5: of the file, or of the folder's listing, followed by ``.dir``.
        in_cache: whether all of it is in the project's cache; None if unknown.
        on_remote: whether all of it is on the default remote; None if unknown.
    """

    path: str
    stage: str
    md5: str
    in_cache: bool | None = None
    on_remote: bool | None = None


class LockedFile(BaseModel):
    """A file or folder in a dvc.lock."""

    path: str
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}(\.dir)?$")]


def _inside(files: list[LockedFile]) -> list[LockedFile]:
    """Refuse outs outside of the project's folder, where DVC would write them."""
    for file in files:
        inside(file.path)
    return files


def inside(path: str) -> str:
    """The path; a ValueError if it is outside of the project, or of git or DVC."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or {"..", ".git", ".dvc"} & set(parts):
        raise ValueError("is outside of the project")
    return path


_Files = Annotated[list[LockedFile], BeforeValidator(lambda found: found or [])]
_Stage = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_@.-]*$")]


class LockedStage(BaseModel):
    """A stage in a dvc.lock: what it read and wrote, and its parameters by file."""

    deps: _Files = []
    outs: Annotated[_Files, AfterValidator(_inside)] = []
    params: dict[str, dict[str, Any]] = {}


def locked_stages(lock: str) -> dict[str, LockedStage]:
    """The stages in the text of a dvc.lock, by name.

    Raises:
        UserError: it is no dvc.lock, or an empty or damaged one.
    """
    if not lock.strip():
        raise UserError(f"{LOCK} is empty: type `imageclf mend`, or check it out from git")
    try:
        stages = (parse_yaml(lock, LOCK) or {}).get("stages") or {}
        return TypeAdapter(dict[_Stage, LockedStage]).validate_python(stages)
    except (ValidationError, AttributeError):
        raise UserError(
            f"{LOCK} is torn or not DVC's: remove it, or check it out from git"
        ) from None


def recorded_outs(lock: str) -> list[Out]:
    """Every out in the text of a dvc.lock; raises as ``locked_stages`` does."""
    return [
        Out(out.path, name, out.md5)
        for name, stage in locked_stages(lock).items()
        for out in stage.outs
    ]


def recorded_sources(lock: str) -> dict[str, str]:
    """The md5 of every dep that no stage wrote, by path; raises as ``locked_stages`` does."""
    stages = locked_stages(lock).values()
    written = [out.path for stage in stages for out in stage.outs]
    return {
        dep.path: dep.md5
        for stage in stages
        for dep in stage.deps
        if not lies_in(dep.path, written)
    }


def outs_read_otherwise(lock: str, written: Mapping[str, str]) -> set[str]:
    """The outs that a stage read in another state than dvc.lock now records.

    ``lock`` is the text of a dvc.lock, and ``written`` comes from ``dvc.written_files``.
    """
    stages = locked_stages(lock).values()
    outs = [out for stage in stages for out in stage.outs]
    known = {**written, **{out.path: out.md5 for out in outs}}
    read = {(dep.path, dep.md5) for stage in stages for dep in stage.deps}
    others = {path for path, md5 in read if known.get(path, md5) != md5}
    return {out.path for out in outs if any(lies_in(path, [out.path]) for path in others)}


def lies_in(path: str, places: Iterable[str]) -> bool:
    """Whether a path is one of the places, or is below one of them."""
    return f"{path}/".startswith(tuple(f"{place}/" for place in places))


def bare_pipeline(lock: str) -> str:
    """A dvc.yaml with nothing but the outs in a dvc.lock."""
    outs = recorded_outs(lock)
    stages = {
        stage: {"cmd": "true", "outs": [out.path for out in outs if out.stage == stage]}
        for stage in dict.fromkeys(out.stage for out in outs)
    }
    return json.dumps({"stages": stages})  # which is YAML too


def lacks(missing_paths: set[str], out: str) -> bool:
    """Whether an out, or something in it, is among the missing paths."""
    return any(lies_in(path, [out]) for path in missing_paths)


def unseen(_: int) -> None:
    """Show no progress."""


def md5_of(path: Path, advance: Advance = unseen) -> str | None:
    """The md5 of a file or a folder as DVC computes it; None if the path does not exist."""
    if path.is_dir():
        files = files_below(path).items()
        listing = [{"md5": md5_of(file, advance), "relpath": name} for name, file in files]
        return f"{_md5(json.dumps(listing).encode()).hexdigest()}.dir"
    if not path.is_file():
        return None
    digest = _md5()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()
