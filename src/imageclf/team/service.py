"""Servers on loopback: their ports, and their programs, which end with this process."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imageclf.files import UserError
from imageclf.system.child import guarded

HOST = "127.0.0.1"
START_S = 120.0
PRIVATE = 0o077  # umask


def check_port(port: int, command: str) -> None:
    """Check that a port of loopback can be had.

    Raises:
        UserError: it is taken; the message says by which program, and that ``command`` takes
            another with PORT.
    """
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        reason = _holder(port) or os.strerror(error.errno or 0)
        raise UserError(f"port {port}: {reason}; `{command} PORT=...` takes another") from None


def _holder(port: int) -> str | None:
    """The program that listens on a port; None if the system does not tell."""
    import psutil

    with suppress(psutil.Error):
        for each in psutil.net_connections("tcp"):
            if each.pid and each.status == psutil.CONN_LISTEN and each.laddr.port == port:
                return f"{psutil.Process(each.pid).name()} (process {each.pid}) has it"
    return None


def answers(url: str) -> bool:
    """Whether an address on loopback answers with success."""
    import requests

    with requests.Session() as session, suppress(requests.RequestException):
        session.trust_env = False  # no proxies, which do not lead to loopback
        return session.get(url, timeout=5).ok
    return False


@contextmanager
def started(
    command: list[str], log: Path, cwd: Path = Path("/"), **settings: object
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a program whose output goes to a log, and whose files only its owner can read."""
    with (
        log.open("ab") as output,
        guarded(
            command, cwd=cwd, stdout=output, stderr=output, umask=PRIVATE, **settings
        ) as process,
    ):
        yield process


def await_ready(
    process: "subprocess.Popen[bytes]", log: Path, is_ready: Callable[[], bool]
) -> None:
    """Wait until a started program is ready.

    Raises:
        UserError: it ends before that, or needs more than ``START_S``; with the log's last line.
    """
    deadline = time.monotonic() + START_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise UserError(f"{log.stem} does not start: {last_line(log)} (see {log})")
        time.sleep(0.1)


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it says nothing"
