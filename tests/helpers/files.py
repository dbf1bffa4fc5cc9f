"""Damage to files, as a bad disk does it."""

import os
from pathlib import Path


def flip(path: Path) -> None:
    """Flip a bit of the byte in the middle, and keep the time and the mode of the file."""
    status = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
