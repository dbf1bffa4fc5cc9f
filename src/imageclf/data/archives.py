"""The uncompressed tar of images: written with nothing but names and contents, read by offsets."""

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
    """A file of a folder or archive: its path there, with ``/``; its bytes; what opens it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Stored:
    """A file in an uncompressed tar: its name, and where its bytes begin and how many there are."""

    name: str
    offset: int
    size: int


def write_tar(files: Sequence[File], target: Path, advance: Callable[[int], object]) -> None:
    """Write an uncompressed tar whose bytes depend on names and contents alone.

    Args:
        files: in the order of the tar.
        target: the path of the tar.
        advance: told the bytes of every file written.

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
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            advance(file.size)


def read_tar(path: Path) -> list[Stored]:
    """Where the files of an uncompressed tar lie, in its order.

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
    """Check that a tar has the mark of its end behind its last file, and nothing behind that.

    The tarfile module takes a header whose checksum is wrong, or that is cut off, for the end.

    Args:
        path: of the uncompressed tar.
        end: the bytes that its files and their headers take (``TarFile.offset``, all listed).

    Raises:
        tarfile.ReadError: it goes on, or breaks off.
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
