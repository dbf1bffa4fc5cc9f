"""DVC as a command: the one way to call it, and what its cache and remotes hold."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from imageclf.files import UserError, write_text
from imageclf.project.git import IN_NONE, check_repository
from imageclf.system.child import guarded

DVC = (sys.executable, "-m", "dvc")
# Seconds that a remote may take to answer; some servers never do.
PATIENCE_S = 10.0

# DVC's configuration: the options of each section, by its title.
Config = dict[str, dict[str, str]]


@contextmanager
def laid_out(files: Mapping[str, str]) -> Iterator[Path]:
    """A temporary folder with these files (name: text), sharing the project's cache and remotes.

    Raises:
        UserError: this is no DVC project.
    """
    config = shared_config()
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text, "utf-8")
        alone = {"no_scm": "true", "analytics": "false", "site_cache_dir": f"{folder}/.dvc/site"}
        write_config(folder / ".dvc/config", config | {"core": config["core"] | alone})
        yield folder


def read_outs(folder: Path, paths: list[str]) -> dict[str, Any]:
    """The JSON outs among ``paths`` that the cache has, by path."""
    dvc("checkout", "--quiet", "--allow-missing", "--", *paths, at=folder)
    found = {path: folder / path for path in paths}
    return {path: json.loads(file.read_bytes()) for path, file in found.items() if file.exists()}


def written_files() -> dict[str, str]:
    """The md5 of every file that a stage wrote, by its path, whether or not the file is here.

    Raises:
        UserError: neither the cache nor the default remote knows them.
    """
    done = dvc("list", "--dvc-only", "--recursive", "--json", "--show-hash", ".")
    if done.returncode:
        raise UserError(reason_of(done))
    return {file["path"]: file["md5"] for file in json.loads(done.stdout)}


def missing(folder: Path) -> set[str]:
    """The outs that the cache lacks, in whole or in part; a UserError where DVC fails."""
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


def reason_of(done: "subprocess.CompletedProcess[str]") -> str:
    """Why a `dvc` command failed, in one line."""
    lines = done.stderr.strip().splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [f"dvc ended with code {done.returncode}"])[0]


@cache
def shared_config() -> Config:
    """The configuration by which another folder shares the project's cache and remotes.

    Raises:
        UserError: this is no DVC project.
    """
    place = dvc("cache", "dir")
    if place.returncode:
        raise UserError("this is no DVC project: run this in the folder of the project")
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
    """The name of DVC's default remote; a UserError if there is none, or no DVC project."""
    name = shared_config()["core"].get("remote")
    if name is None:
        raise UserError("there is no default remote (`dvc remote add --default` makes one)")
    return name


def has_remotes() -> bool:
    """Whether DVC has a remote."""
    return any("remote " in title for title in shared_config())


def write_config(path: Path, sections: Config) -> None:
    """Write a DVC configuration file."""
    lines = []
    for title, options in sections.items():
        lines.append(f"[{title}]")
        lines += [f'{key} = """{value}"""' for key, value in options.items()]
    write_text(path, "\n".join(lines) + "\n")


def dvc(
    *arguments: str, at: Path | None = None, timeout: float | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a `dvc` command, in the folder ``at`` if it is given, and return its result.

    Raises:
        subprocess.TimeoutExpired: after ``timeout`` seconds.
        UserError: the project is in no git repository.
    """
    environment = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    environment["PYTHONIOENCODING"] = "utf-8"  # whatever the terminal has
    done = subprocess.run(  # noqa: S603 - no shell
        [*DVC, *arguments],
        cwd=at,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=timeout,
    )
    if done.returncode and IN_NONE in done.stderr:
        check_repository()
    return done


def dvc_in_terminal(
    *arguments: str,
    at: Path | None = None,
    environment: Mapping[str, str] | None = None,
    **streams: int,
) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """Run a `dvc` command in the folder ``at``; it ends with the block.

    It reads and writes the terminal, but for the ``streams`` that are given: stdin, stdout, stderr.

    Raises:
        UserError: the project is in no git repository.
    """
    if at is None:
        check_repository()
    return guarded([*DVC, *arguments], cwd=at, env=environment, **streams)
