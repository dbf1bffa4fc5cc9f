"""What the machine gives a process: its cores, room on the disk, and memory to be tidied."""

import atexit
import ctypes
import gc
import os
import shutil
from pathlib import Path

from imageclf.files import UserError

# glibc's names in malloc.h for what `mallopt` sets, and the values in bytes.
M_TRIM_THRESHOLD, KEPT = -1, 1 << 30
M_MMAP_THRESHOLD, LARGE = -3, 32 << 20
NEW_OBJECTS = 50_000


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_space(folder: Path, needed: int, work: str, remedy: str) -> None:
    """Refuse work that would fill the disk of a folder.

    Args:
        folder: exists.
        needed: bytes.
        work: what needs them, for the message.
        remedy: what the user can do.

    Raises:
        UserError: fewer bytes are free.
    """
    from rich.filesize import decimal

    if needed > (free := shutil.disk_usage(folder).free):
        raise UserError(
            f"{work} needs {decimal(needed)}, but {folder} has {decimal(free)} free: {remedy}"
        )


def keep_freed_memory() -> None:
    """Keep what one step or image frees for the next, where the C library is glibc.

    By default it is handed back to the system and taken anew, page by page, time after time: a
    sixth of a convolutional network's time, and a tenth of an image's that is decoded.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)


def collect_garbage_rarely() -> None:
    """For a program: look for objects that hold each other less often, and not at its exit.

    Python looks through all that was imported time after time: a fifth of the 1.25 seconds that
    torch takes, and as it ends 0.4 more, though the system takes the memory back anyway.
    """
    gc.set_threshold(NEW_OBJECTS)
    atexit.register(gc.freeze)
