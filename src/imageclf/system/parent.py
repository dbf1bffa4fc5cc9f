"""A process that ends with the one that started it."""

import os
import signal
import threading
import time

POLL_S = 0.2


def end_with_parent() -> None:
    """From now on, kill this process soon after its parent has ended."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)
