"""Files that appear whole or not at all, and the digests that name them."""

import csv
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

from imageclf.text import printable

LINE_SHOWN = 60  # characters of a line that is not valid
LARGEST_CSV = 1 << 28  # bytes: ten times the predictions of a million images
# Error numbers of an OSError: no space left, or none of the user's quota.
DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT}
# NumPy's own words for it, without a number (`PyArray_ToFile`).
NUMPY_DISK_IS_FULL = re.compile(r"Not enough free space to write|\d+ requested and \d+ written")


class UserError(Exception):
    """An error that the user can fix: shown as one line, no traceback, exit code 2."""

    def __init__(self, message: object) -> None:
        super().__init__(printable(message))


@contextmanager
def file_errors_told() -> Iterator[None]:
    """Raise an OSError as a UserError that names the file and the reason, or the full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_IS_FULL or NUMPY_DISK_IS_FULL.match(str(error)):
            raise UserError("the disk is full: make room and try again") from error
        if error.filename:
            raise UserError(f"{error.filename}: {error.strerror}") from error
        raise


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to; it becomes ``target`` only if the block succeeds.

    The bytes are on the disk (fsync) before the name changes, so after a crash the target is
    either the old file or the whole new one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_writer(target: Path) -> Iterator[BinaryIO]:
    """Open ``target`` for writing bytes; it appears under its name only if the block succeeds."""
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        yield file


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target``; it replaces ``target`` if the block succeeds."""
    temporary = target.with_name(f".{target.name}.tmp")
    _remove_folder(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                _flush(path)
        _remove_folder(target)
        temporary.rename(target)
    finally:
        _remove_folder(temporary)


def flush_beside(paths: Sequence[Path]) -> None:
    """Start to flush large files in a thread, so that less is left to flush at the end."""

    def flush() -> None:
        with suppress(FileNotFoundError):  # the work failed, and its folder was removed
            for path in paths:
                _flush(path)

    Thread(target=flush, daemon=True).start()


def write_text(target: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic_writer(target) as file:
        file.write(text.encode())


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, keys in the order given, whole or not at all."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of an earlier stage; a UserError if it is missing or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro` to make it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): run `dvc repro` again") from None


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """These columns of a CSV file of an earlier stage, row by row.

    Raises:
        UserError: it is missing, is larger than any that this project writes, or is no such table.
    """
    try:
        if path.stat().st_size > LARGEST_CSV:
            raise ValueError("it is too large")
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file, strict=True)
            if missing := {*columns} - {*(table.fieldnames or ())}:
                raise ValueError(f"it has no column {min(missing)}")
            rows = [tuple(row[name] for name in columns) for row in table]
        if any(None in row for row in rows):
            raise ValueError("a row has too few cells")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro` to make it") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not valid CSV ({error}): run `dvc repro` again") from None
    return rows


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2 as plain values, as DVC does; a UserError if it is missing or not YAML."""
    try:
        return parse_yaml(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: run this in the folder of the project, or restore it from git"
        ) from None


def parse_yaml(text: str | bytes, source: str) -> Any:
    """Parse YAML 1.2 to plain values; a UserError, which names the ``source``, if it is invalid."""
    from ruamel.yaml import YAML

    with yaml_errors_told(source, text):
        return YAML(typ="safe").load(text)


@contextmanager
def yaml_errors_told(source: str, text: str | bytes = "") -> Iterator[None]:
    """Raise what ruamel.yaml raises while it reads ``source`` as a UserError of one line.

    With the ``text`` that it reads, the line at fault is named, and what is expected there.

    A date such as 2001-99-99, a number of 5,000 digits, a tag such as ``!!int x`` and a thousand
    open brackets are not among its own errors.
    """
    from ruamel.yaml.error import YAMLError

    try:
        yield
    except RecursionError:
        raise UserError(f"{source} is not valid YAML: it is nested too deeply") from None
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        whole = text if isinstance(text, str) else text.decode(errors="replace")
        raise UserError(f"{source} is not valid YAML: {_fault(error, whole)}") from None


def _fault(error: Exception, text: str) -> str:
    """What is wrong in a line of YAML, in plain words for the commonest mistakes."""
    from ruamel.yaml.error import MarkedYAMLError

    lines = text.split("\n")
    if not isinstance(error, MarkedYAMLError) or not error.problem_mark:
        return " ".join(str(error).split())
    problem, place = str(error.problem), error.problem_mark.line
    if "expected ':'" in problem and error.context_mark:
        place, problem = (
            error.context_mark.line,
            'is not "name: value", with a space after the colon',
        )
    if place >= len(lines):
        return f"it ends too early: {problem}"
    line = lines[place]
    above = [each for each in lines[:place] if each.strip() and not each.lstrip().startswith("#")]
    spaces, before = (len(each) - len(each.lstrip()) for each in (line, above[-1] if above else ""))
    if line.startswith("\t"):
        problem = "begins with a tab: use spaces"
    elif "mapping" in problem and spaces != before:
        problem = (
            f"is indented by {spaces} and the line above by {before}: the names of one section "
            "begin at the same column"
        )
    shown = line.partition(" #")[0].strip()[:LINE_SHOWN]
    return f'line {place + 1}, "{shown}": {problem}'


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """The sha256 of a JSON value, independent of the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _flush(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _remove_folder(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
