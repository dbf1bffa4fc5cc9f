"""Download a file over HTTP: resumed where it stopped, and retried if that can help.

The partial file is ``TARGET.part``, beside its target; ``TARGET.part.json`` holds the server's data
on it. Both stay after a lost connection or a kill, so that the next call requests only the missing
bytes.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress, TaskID

from imageclf.files import sha256_file, write_json
from imageclf.system.progress import byte_progress
from imageclf.text import printable

CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 20.0  # seconds
SLOWEST = 1_000  # bytes per second over READ_TIMEOUT: a slower server counts as hanging
ATTEMPTS = 4
BACKOFF = 1.0  # seconds before the second attempt, doubled before each further one
CHUNK = 1 << 16  # bytes

PASSING = {408, 425, 429, 500, 502, 503, 504}
# S3 answers 403 for a missing name.
NOT_THERE = {403, 404, 410}


class UnavailableError(Exception):
    """A file is not available from a place; the message gives the reason."""


class NotFoundError(UnavailableError):
    """The place answers, but has no such file."""


class _PassingError(Exception):
    """A fault that may be gone at the next attempt."""


@dataclass(frozen=True)
class _Partial:
    """The bytes received so far, and the notes on their source."""

    url: str
    data: Path
    notes: Path

    def read(self) -> tuple[int, dict[str, Any]]:
        """The number of bytes to continue from, and the notes; (0, {}) for a fresh start."""
        if not (self.data.exists() and self.notes.exists()):
            return 0, {}
        notes = json.loads(self.notes.read_bytes())
        return (self.data.stat().st_size, notes) if notes["url"] == self.url else (0, {})

    def start(self, total: int | None, validator: str | None) -> None:
        # The notes are removed first: old notes must never be beside new bytes.
        self.notes.unlink(missing_ok=True)
        self.data.write_bytes(b"")
        write_json(self.notes, {"url": self.url, "total": total, "validator": validator})

    def discard(self) -> None:
        self.notes.unlink(missing_ok=True)
        self.data.unlink(missing_ok=True)


def download(
    url: str,
    target: Path,
    console: Console,
    *,
    sha256: str | None = None,
    largest: int | None = None,
) -> None:
    """Download ``url`` to ``target``, which appears only when it is whole.

    A name that does not resolve, a refused connection or an HTTP error fails at once. After a busy
    server, silence or a lost connection the download continues, in ATTEMPTS attempts at most. On a
    terminal a bar shows bytes, rate and time left.

    Args:
        url: an http or https address.
        target: gets the bytes exactly as the server stores them.
        console: for the bar and a line for every further attempt.
        sha256: of the whole file, 64 hexadecimal digits; a file that differs is removed.
        largest: refuse a file of more bytes than this.

    Raises:
        NotFoundError: the server has no such file.
        UnavailableError: the file is not available for any other reason.
        OSError: the file cannot be written.
    """
    partial = _Partial(
        url,
        target.with_name(f"{target.name}.part"),
        target.with_name(f"{target.name}.part.json"),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with byte_progress(console) as progress:
        task = progress.add_task(PurePosixPath(urlsplit(url).path).name, total=None)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _receive(partial, largest, progress, task)
                break
            except _PassingError as error:
                if attempt == ATTEMPTS:
                    raise UnavailableError(f"{error}, {ATTEMPTS} times") from error
                pause = BACKOFF * 2 ** (attempt - 1)
                received = decimal(partial.read()[0])
                console.print(f"  {printable(error)}; going on from {received} in {pause:g} s")
                time.sleep(pause)
    _complete(partial, target, sha256)


def _complete(partial: _Partial, target: Path, sha256: str | None) -> None:
    if sha256 is not None and (found := sha256_file(partial.data)) != sha256:
        partial.discard()
        raise UnavailableError(f"its sha256 is {found}, not {sha256}")
    with partial.data.open("rb") as file:
        os.fsync(file.fileno())
    partial.data.replace(target)
    partial.notes.unlink()


def _receive(partial: _Partial, largest: int | None, progress: Progress, task: TaskID) -> None:
    """Request the missing bytes and add them to the partial file."""
    offset, notes = partial.read()
    if offset and offset == notes["total"]:
        return
    try:
        with requests.get(
            partial.url,
            headers={"Accept-Encoding": "identity", **_range_headers(offset, notes)},
            stream=True,
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
        ) as response:
            received, total = _begin(response, partial, offset, notes)
            progress.reset(task, total=total, completed=received)
            with partial.data.open("ab") as file:
                for chunk in _chunks(response):
                    received += len(chunk)
                    if largest is not None and received > largest:
                        partial.discard()
                        raise UnavailableError(f"sends more than {decimal(largest)}")
                    file.write(chunk)
                    progress.update(task, completed=received)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _explained(error) from error
    if total is not None and received < total:
        raise _PassingError("the connection was lost")


def _range_headers(offset: int, notes: dict[str, Any]) -> dict[str, str]:
    if not offset:
        return {}
    headers = {"Range": f"bytes={offset}-"}
    if notes["validator"]:
        headers["If-Range"] = notes["validator"]
    return headers


def _begin(
    response: requests.Response, partial: _Partial, offset: int, notes: dict[str, Any]
) -> tuple[int, int | None]:
    """The number of bytes of the partial file that the answer continues from, and the whole size.

    A server may ignore a range (200: the whole file), refuse it (416), or send another one. Only a
    206 with the right offset in a file of the same size is added to the partial file.
    """
    status, headers = response.status_code, response.headers
    if status in PASSING:
        raise _PassingError(f"HTTP {status} {response.reason}")
    if status in NOT_THERE:
        raise NotFoundError(f"HTTP {status} {response.reason}")
    if status == 206 and offset:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if place and [int(number) for number in place.groups()] == [offset, notes["total"]]:
            return offset, notes["total"]
    if status in (206, 416):
        partial.discard()
        raise _PassingError("the server does not go on from where it stopped")
    if status != 200:
        raise UnavailableError(f"HTTP {status} {response.reason}")
    length = headers.get("Content-Length")
    total = int(length) if length else None
    etag = headers.get("ETag", "W/")
    # A weak ETag does not say that the bytes of two files are equal (RFC 9110, 8.8.1).
    partial.start(total, headers.get("Last-Modified") if etag.startswith("W/") else etag)
    return 0, total


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """The body as it is sent, without decoding any Content-Encoding.

    Raises:
        _PassingError: the connection was lost, or the server is silent or too slow.
    """
    since, received = time.monotonic(), 0
    try:
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            yield chunk
            received += len(chunk)
            if (elapsed := time.monotonic() - since) >= READ_TIMEOUT:
                if received < SLOWEST * elapsed:
                    raise _PassingError(
                        f"the server sent only {decimal(received)} in {elapsed:.0f} s"
                    )
                since, received = time.monotonic(), 0
    except urllib3.exceptions.ReadTimeoutError as error:
        raise _PassingError(f"the server was silent for {READ_TIMEOUT:g} s") from error
    except urllib3.exceptions.HTTPError as error:
        raise _PassingError("the connection was lost") from error


def _explained(error: Exception) -> Exception:
    """The error to raise for one that came before the server answered."""
    if isinstance(error, requests.ReadTimeout):
        return _PassingError(f"the server was silent for {READ_TIMEOUT:g} s")
    cause = error.args[0] if error.args else error
    if not isinstance(error, requests.ConnectionError):
        return UnavailableError(str(cause))
    if isinstance(cause, urllib3.exceptions.MaxRetryError):
        return UnavailableError(_why_no_connection(cause.pool.host, cause.reason))
    return _PassingError("the connection was lost")


def _why_no_connection(host: str, reason: Exception | None) -> str:
    match reason:
        case urllib3.exceptions.NameResolutionError():
            return f"{host} does not resolve"
        case urllib3.exceptions.ProxyError():
            return _why_no_connection("the proxy", reason.original_error)
        case urllib3.exceptions.NewConnectionError(__cause__=OSError(strerror=str(text))):
            return f"{host}: {text.lower()}"
        case urllib3.exceptions.ConnectTimeoutError():
            return f"{host} did not answer within {CONNECT_TIMEOUT:g} s"
    return f"{host}: {reason}"
