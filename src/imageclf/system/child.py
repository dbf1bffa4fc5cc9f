"""Other programs that end with this process, however it ends."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

STOP_S = 20.0  # that a program has to end after SIGINT
# A shell in a session of its own, which reads until the pipe from this process closes.
GUARD = 'read -r _; kill -KILL "-$1"'


@contextmanager
def guarded(command: Sequence[str], **settings: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program while the block runs; ``settings`` are those of ``subprocess.Popen``.

    It has a session of its own: Ctrl-C reaches this process alone, and the program can still read
    the terminal, for which a background group of this session would be stopped.

    At the end of the block the program's group gets SIGINT, and SIGKILL after ``STOP_S``. If this
    process is killed, so is the group.
    """
    process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - no shell
        command, start_new_session=True, **settings
    )
    guard = subprocess.Popen(  # noqa: S603
        ["sh", "-c", GUARD, "guard", str(process.pid)],  # noqa: S607
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _stop(process)
        guard.kill()
        guard.communicate()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    try:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):  # none of the group is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
