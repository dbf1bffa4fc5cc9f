"""Other programs that end with this process, however it ends."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

STOP_S = 20.0  # for a program to end by itself, when it is asked to
# It sits in a session of its own, and reads until the pipe from this process ends.
GUARD = 'read -r _; kill -KILL "-$1"'


@contextmanager
def guarded(command: Sequence[str], **settings: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program in a session of its own while the block runs.

    So Ctrl-C reaches this process alone, and yet a question of the program's can be answered in the
    terminal: a group in the background of this session would be stopped there.

    At the end of the block the program's group is asked to end (SIGINT), and is killed after
    ``STOP_S``. If this process is killed, so is the group.

    Args:
        command: the program and its arguments.
        settings: as ``subprocess.Popen`` takes them.
    """
    process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - the project's own words
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
