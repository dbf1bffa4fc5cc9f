"""What the machine gives a process: its cores, and memory, which takes time to be tidied."""

import atexit
import ctypes
import gc
import os

# glibc's names in malloc.h for what `mallopt` sets, and the values in bytes.
M_TRIM_THRESHOLD, KEPT = -1, 1 << 30
M_MMAP_THRESHOLD, LARGE = -3, 32 << 20
NEW_OBJECTS = 50_000


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
