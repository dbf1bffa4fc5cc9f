"""The uncompressed tar of images: written from names and contents only, read by offsets."""

import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from imageclf.files import UserError

CHUNK = 1 << 20  # bytes
# Two blocks of zeros: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html, ustar
END_MARK = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class File:
    """A file of a folder or archive: its path there, with ``/``; its bytes; a way to open it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Stored:
    """A file in an uncompressed tar: its name, and the offset and number of its bytes."""

    name: str
    offset: int
    size: int


def write_tar(files: Sequence[File], target: Path, advance: Callable[[int], object]) -> None:
    """Write an uncompressed tar whose bytes depend only on names and contents.

    ``advance`` is called with the bytes of every file written.

    Raises:
        UserError: a file changed while it was read.
    """
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            info = tarfile.TarInfo(file.name)
            info.size = file.size
            with file.open() as content:
                archive.addfile(info, content)
                if content.read(1):
                    raise UserError(f"{file.name} grew while it was read: try again")
            archive.members.clear()  # type: ignore[attr-defined]  # saves memory
            advance(file.size)


def read_tar(path: Path) -> list[Stored]:
    """The files of an uncompressed tar, in its order.

    Raises:
        UserError: the tar is damaged.
    """
    found = []
    try:
        with tarfile.open(path, "r:") as archive:
            while info := archive.next():
                found.append(Stored(info.name, info.offset_data, info.size))
                archive.members.clear()  # type: ignore[attr-defined]
            check_end(path, archive.offset)
    except tarfile.TarError as error:
        raise UserError(
            f"{path} is damaged ({error}): make it again with `dvc repro -f -s fetch`"
        ) from error
    return found


def check_end(path: Path, end: int) -> None:
    """Check that a tar has the end mark after its last file, and nothing after that.

    The tarfile module takes a header that is cut off or has a wrong checksum for the end. ``end``
    is ``TarFile.offset`` after all files were listed.

    Raises:
        tarfile.ReadError: it is cut off, or data follow the end mark.
    """
    with path.open("rb") as file:
        file.seek(end)
        if file.read(len(END_MARK)) != END_MARK:
            raise tarfile.ReadError(
                f"after {end:,} bytes there is neither a valid header nor the mark of the end"
            )
        while piece := file.read(CHUNK):
            if any(piece):
                raise tarfile.ReadError(
                    "something follows behind its end; `tar -A` joins tar files as they should be"
                )
