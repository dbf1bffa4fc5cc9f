"""A process that ends with the ones that started it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psutil import Process

POLL_S = 0.2


def end_with_parent(last: Callable[[int], bool] = lambda _: True) -> None:
    """From now on, kill this process soon after its parent has ended.

    Args:
        last: whether a process id is that of the outermost process to watch. Those between it and
            this one are watched too, such as the shell in which it started this one. If it is true
            of none, only the parent is watched.
    """
    import psutil

    ancestors = psutil.Process().parents()
    outermost = next((i for i, process in enumerate(ancestors) if last(process.pid)), 0)
    watched = ancestors[: outermost + 1]
    threading.Thread(target=_end_with, args=(watched,), daemon=True).start()


def _end_with(watched: Sequence["Process"]) -> None:
    while all(map(_runs, watched)):
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _runs(process: "Process") -> bool:
    """Whether a process has not ended, even if its own parent has not taken notice."""
    import psutil

    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
