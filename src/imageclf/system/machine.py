"""The machine's resources: cores, disk space, and how memory is freed."""

import atexit
import ctypes
import gc
import getpass
import os
import shutil
from pathlib import Path

from imageclf.files import UserError

# Options of glibc's `mallopt` (malloc.h), and their values in bytes.
M_TRIM_THRESHOLD, KEPT = -1, 1 << 30
M_MMAP_THRESHOLD, LARGE = -3, 32 << 20
NEW_OBJECTS = 50_000


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_space(folder: Path, needed: int, work: str, remedy: str) -> None:
    """Refuse work that would fill the disk.

    Args:
        folder: on that disk; it exists.
        needed: bytes.
        work: what needs them, for the message.
        remedy: what the user can do, for the message.

    Raises:
        UserError: fewer bytes are free.
    """
    from rich.filesize import decimal

    if needed > (free := shutil.disk_usage(folder).free):
        raise UserError(
            f"{work} needs {decimal(needed)}, but {folder} has {decimal(free)} free: {remedy}"
        )


def name_the_user(home: Path) -> None:
    """Set ``HOME`` and ``USER`` if neither they nor the system's list of users tell them.

    A container that runs as a number has no entry there, and MLflow and DVC fail without.
    """
    try:
        Path.home()
    except RuntimeError:
        home.mkdir(parents=True, exist_ok=True)
        os.environ["HOME"] = str(home)
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def keep_freed_memory() -> None:
    """Keep the memory that one step or image frees for the next one (glibc only).

    By default it goes back to the system and is mapped again each time: a sixth of the time of a
    convolutional network, and a tenth of the time to decode an image.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)


def collect_garbage_rarely() -> None:
    """Let Python collect reference cycles less often, and not at the program's exit.

    It scans all imported objects each time: a fifth of the 1.25 s that importing torch takes, and
    0.4 s at the exit, where the system frees the memory anyway.
    """
    gc.set_threshold(NEW_OBJECTS)
    atexit.register(gc.freeze)
