"""DVC's cache and remotes, asked through the `dvc` command."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError

from imageclf.files import UserError, write_text
from imageclf.journal import PIPELINE
from imageclf.params import parse_yaml

DVC_YAML, _, LOCK = PIPELINE
# Seconds that a remote has to answer in; a server that swallows every word is waited for no longer.
PATIENCE_S = 10.0

# Sections of DVC's configuration by title, each with its options.
Config = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Out:
    """Something that a stage wrote.

    Attributes:
        path: below the project's folder.
        stage: that wrote it.
        md5: of the file, or of the listing of the folder and then with ``.dir`` at its end.
        in_cache: whether all of it is in the project's cache; None where that is not known.
        on_remote: likewise for the default remote.
    """

    path: str
    stage: str
    md5: str
    in_cache: bool | None = None
    on_remote: bool | None = None


class LockedFile(BaseModel):
    """A file or folder that a dvc.lock tells of."""

    path: str
    md5: str


_Files = Annotated[list[LockedFile], BeforeValidator(lambda found: found or [])]


class LockedStage(BaseModel):
    """What a dvc.lock tells of a stage: what it read and wrote, and its parameters by file."""

    deps: _Files = []
    outs: _Files = []
    params: dict[str, dict[str, Any]] = {}


def locked_stages(lock: str) -> dict[str, LockedStage]:
    """What the text of a dvc.lock tells, by stage; of an empty one nothing.

    Raises:
        UserError: it is no dvc.lock, or one that a kill tore.
    """
    try:
        stages = (parse_yaml(lock, LOCK) or {}).get("stages") or {}
        return TypeAdapter(dict[str, LockedStage]).validate_python(stages)
    except (ValidationError, AttributeError):
        raise UserError(f"{LOCK} is torn: remove it, or check it out from git") from None


def md5_of(path: Path) -> str | None:
    """The md5 of a file, as DVC names it; None where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return found.hexdigest()


def recorded_outs(lock: str) -> list[Out]:
    """Every out that the text of a dvc.lock tells of, in the order of the stages.

    Raises:
        UserError: it is no dvc.lock.
    """
    return [
        Out(out.path, name, out.md5)
        for name, stage in locked_stages(lock).items()
        for out in stage.outs
    ]


def recorded_sources(lock: str) -> dict[str, str]:
    """The md5 of every file that a stage depends on and that no stage wrote, by its path.

    Raises:
        UserError: it is no dvc.lock.
    """
    stages = locked_stages(lock).values()
    written = [out.path for stage in stages for out in stage.outs]
    return {
        dep.path: dep.md5
        for stage in stages
        for dep in stage.deps
        if not lies_in(dep.path, written)
    }


def outs_read_otherwise(lock: str, written: Mapping[str, str]) -> set[str]:
    """The outs of which a stage has read something else than a dvc.lock now tells of them.

    Args:
        lock: the text of a dvc.lock.
        written: of ``written_files``.
    """
    stages = locked_stages(lock).values()
    outs = [out for stage in stages for out in stage.outs]
    known = {**written, **{out.path: out.md5 for out in outs}}
    read = {(dep.path, dep.md5) for stage in stages for dep in stage.deps}
    others = {path for path, md5 in read if known.get(path, md5) != md5}
    return {out.path for out in outs if any(lies_in(path, [out.path]) for path in others)}


def lies_in(path: str, places: Iterable[str]) -> bool:
    """Whether a path is one of the places, or lies in one that is a folder."""
    return f"{path}/".startswith(tuple(f"{place}/" for place in places))


def bare_pipeline(lock: str) -> str:
    """A dvc.yaml that knows of the outs in a dvc.lock and of nothing else."""
    outs = recorded_outs(lock)
    stages = {
        stage: {"cmd": "true", "outs": [out.path for out in outs if out.stage == stage]}
        for stage in dict.fromkeys(out.stage for out in outs)
    }
    return json.dumps({"stages": stages})  # which is YAML too


@contextmanager
def laid_out(files: Mapping[str, str]) -> Iterator[Path]:
    """A temporary folder with texts by file name, that shares the project's cache and remotes.

    Raises:
        UserError: this is no project of DVC's.
    """
    config = shared_config()
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text)
        alone = {"no_scm": "true", "analytics": "false", "site_cache_dir": f"{folder}/.dvc/site"}
        write_config(folder / ".dvc/config", config | {"core": config["core"] | alone})
        yield folder


def read_outs(folder: Path, paths: list[str]) -> dict[str, Any]:
    """The JSON files among a folder's outs that the cache has, by path."""
    dvc("checkout", "--quiet", "--allow-missing", *paths, at=folder)
    found = {path: folder / path for path in paths}
    return {path: json.loads(file.read_bytes()) for path, file in found.items() if file.exists()}


def written_files() -> dict[str, str]:
    """The md5 of every file that a stage wrote, by its path, wherever the file is.

    Raises:
        UserError: neither the cache nor the default remote tells.
    """
    done = dvc("list", "--dvc-only", "--recursive", "--json", "--show-hash", ".")
    if done.returncode:
        raise UserError(reason_of(done))
    return {file["path"]: file["md5"] for file in json.loads(done.stdout)}


def missing(folder: Path) -> set[str]:
    """The outs that the cache lacks, in whole or in part.

    Raises:
        UserError: DVC cannot tell.
    """
    return _missing("not_in_cache", dvc("data", "status", "--granular", "--json", at=folder))


def missing_on_remote(folder: Path) -> set[str]:
    """The outs that the default remote lacks, in whole or in part.

    Raises:
        UserError: there is no such remote, or it does not answer within ``PATIENCE_S``.
    """
    name = default_remote()
    command = ("data", "status", "--granular", "--json", "--not-in-remote")
    try:
        return _missing("not_in_remote", dvc(*command, at=folder, timeout=PATIENCE_S))
    except subprocess.TimeoutExpired:
        raise UserError(f"{name} does not answer within {PATIENCE_S:.0f} s") from None
    except UserError as error:
        raise UserError(f"{name} cannot be asked: {error}") from None


def _missing(key: str, done: "subprocess.CompletedProcess[str]") -> set[str]:
    if done.returncode:
        raise UserError(reason_of(done))
    paths: list[str] = json.loads(done.stdout).get(key, [])
    return {path.rstrip("/") for path in paths}


def lacks(missing_paths: set[str], out: str) -> bool:
    """Whether an out is among the paths, or something in it."""
    return any(lies_in(path, [out]) for path in missing_paths)


def reason_of(done: "subprocess.CompletedProcess[str]") -> str:
    """Why a `dvc` command failed, in one line."""
    lines = done.stderr.strip().splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [f"dvc ended with code {done.returncode}"])[0]


@cache
def shared_config() -> Config:
    """What another folder needs to share the project's cache and remotes.

    Raises:
        UserError: this is no project of DVC's.
    """
    place = dvc("cache", "dir")
    if place.returncode:
        raise UserError("this is no folder of DVC's: run this in the folder of the project")
    sections: Config = {"core": {}, "cache": {"dir": place.stdout.strip()}}
    for line in dvc("config", "--list").stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section.startswith("remote."):
            title = f"'remote \"{section.removeprefix('remote.')}\"'"
            sections.setdefault(title, {})[option] = value
        elif key == "core.remote":
            sections["core"]["remote"] = value
    return sections


def default_remote() -> str:
    """The name of DVC's default remote.

    Raises:
        UserError: there is none, or this is no project of DVC's.
    """
    name = shared_config()["core"].get("remote")
    if name is None:
        raise UserError("there is no default remote (`dvc remote add --default` makes one)")
    return name


def has_remotes() -> bool:
    """Whether files may also come from elsewhere than the cache."""
    return any("remote " in title for title in shared_config())


def write_config(path: Path, sections: Config) -> None:
    """Write a configuration of DVC's."""
    lines = []
    for title, options in sections.items():
        lines.append(f"[{title}]")
        lines += [f'{key} = """{value}"""' for key, value in options.items()]
    write_text(path, "\n".join(lines) + "\n")


def dvc(
    *arguments: str, at: Path | None = None, timeout: float | None = None
) -> "subprocess.CompletedProcess[str]":
    """What a `dvc` command ends with, in another folder than the current one if ``at`` is given.

    Raises:
        subprocess.TimeoutExpired: after ``timeout`` seconds.
    """
    environment = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    return subprocess.run(  # noqa: S603 - every word of it is the project's own
        [sys.executable, "-m", "dvc", *arguments],
        cwd=at,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
