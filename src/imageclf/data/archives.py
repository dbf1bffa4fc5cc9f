"""Folders, zip and tar files as one thing: named files that can be read; and the tar made of them.

Nothing is ever unpacked under a name that an archive gives: its files are read one by one and
written into a tar file of our own.
"""

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from rich.filesize import decimal

from imageclf.files import UserError

# Images hardly shrink. An archive that grows more than this, and to more than HARMLESS, is a bomb.
MOST_EXPANSION = 100
HARMLESS = 1 << 30  # bytes
CHUNK = 1 << 20  # bytes
# What other systems leave beside the files of their users.
LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini"}
COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile),
    *(lzma.LZMAError, zlib.error, EOFError),
)


@dataclass(frozen=True)
class File:
    """A file of a folder or archive: its path there, with ``/``; its bytes; what opens it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Listing:
    """What a folder or archive holds; ``folders`` are the paths of the folders in it."""

    files: list[File]
    folders: list[str]


@dataclass(frozen=True)
class Stored:
    """A file in an uncompressed tar: its name, and where its bytes begin and how many there are."""

    name: str
    offset: int
    size: int


@contextmanager
def opened(source: Path, work: Path) -> Iterator[Listing]:
    """The files of a folder, zip or tar (plain, gzip, bzip2, xz), without hidden ones.

    Args:
        source: the folder or archive.
        work: an existing folder, where a compressed tar is unpacked as a whole.

    Raises:
        UserError: the source is missing, damaged or of another kind, or holds what could do harm:
            names that lead out of it, links, devices, a bomb.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist: data.source names a folder, a zip or tar file")
    try:
        if source.is_dir():
            yield _in_order(_in_folder(source), source)
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                yield _in_order(_in_zip(archive, source), source)
        else:
            with tarfile.open(_plain_tar(source, work), "r:") as archive:
                yield _in_order(_in_tar(archive, source), source)
    except DAMAGED as error:
        raise UserError(
            f"{source} is damaged, or neither a folder nor a zip or tar file ({error})"
        ) from error
    except NotImplementedError as error:
        raise UserError(f"{source} cannot be unpacked: {error}") from error


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
    """Where the files of an uncompressed tar lie, in its order."""
    found = []
    with tarfile.open(path, "r:") as archive:
        while info := archive.next():
            found.append(Stored(info.name, info.offset_data, info.size))
            archive.members.clear()  # type: ignore[attr-defined]
    return found


def _in_folder(source: Path) -> Listing:
    """Links are followed: they are the user's own."""
    files, folders = [], []
    for above, inside, names in os.walk(source, followlinks=True, onerror=_raise):
        inside[:] = [name for name in inside if not _is_hidden(name)]
        for path in (Path(above, name) for name in inside):
            _check_for_loop(path, source)
            folders.append(path.relative_to(source).as_posix())
        for path in (Path(above, name) for name in names if not _is_hidden(name)):
            open_file = cast("Callable[[], IO[bytes]]", partial(path.open, "rb"))
            files.append(File(path.relative_to(source).as_posix(), _size(path), open_file))
    return Listing(files, folders)


def _in_zip(archive: zipfile.ZipFile, source: Path) -> Listing:
    files, folders = [], []
    for info in archive.infolist():
        name = _safe(info.filename, source)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise UserError(f"{source} is refused: {info.filename} is a link or a device")
        if info.flag_bits & 1:
            raise UserError(f"{source} is encrypted: give it without a password")
        if info.is_dir():
            folders.append(name)
        else:
            files.append(File(name, info.file_size, partial(archive.open, info)))
    _check_expansion(sum(file.size for file in files), source)
    return _without_hidden(Listing(files, folders))


def _in_tar(archive: tarfile.TarFile, source: Path) -> Listing:
    files, folders = [], []
    for info in archive:
        name = _safe(info.name, source)
        if info.isdir():
            folders.append(name)
        elif info.isreg():
            # It is None only for what is no regular file.
            extract = cast("Callable[[], IO[bytes]]", partial(archive.extractfile, info))
            files.append(File(name, info.size, extract))
        else:
            raise UserError(f"{source} is refused: {info.name} is a link or a device")
    # A sparse file, too, may claim any size.
    _check_expansion(sum(file.size for file in files), source)
    return _without_hidden(Listing(files, folders))


def _plain_tar(source: Path, work: Path) -> Path:
    """The tar itself, or its unpacked copy: of a compressed one no single file can be reached."""
    with source.open("rb") as file:
        start = file.read(6)
    unpack = next((unpack for magic, unpack in COMPRESSED.items() if start.startswith(magic)), None)
    if unpack is None:
        return source
    target, size = work / "unpacked.tar", 0
    with unpack(source) as packed, target.open("wb") as file:
        while piece := packed.read(CHUNK):
            size += len(piece)
            _check_expansion(size, source)
            file.write(piece)
    return target


def _check_expansion(size: int, source: Path) -> None:
    packed = source.stat().st_size
    if size > HARMLESS and size > MOST_EXPANSION * packed:
        raise UserError(
            f"{source} is refused: its {decimal(packed)} would unpack to more than "
            f"{decimal(max(HARMLESS, MOST_EXPANSION * packed))}, as only a bomb's do"
        )


def _safe(name: str, source: Path) -> str:
    """The name without a ``./`` before it or a ``/`` after it, refused if it leads elsewhere.

    Old programs on Windows write backslashes between folders.
    """
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts:
        raise UserError(f"{source} is refused: the path {name} could lead out of it")
    return "/".join(part for part in parts if part not in {"", "."})


def _in_order(listing: Listing, source: Path) -> Listing:
    """By name, in Unicode's composed form: macOS takes accents apart."""
    files = [File(_composed(file.name, source), file.size, file.open) for file in listing.files]
    files.sort(key=lambda file: file.name)
    for one, other in pairwise(files):
        if one.name == other.name:
            raise UserError(f"{source} holds two files of the name {one.name}: keep one")
    folders = {_composed(folder, source) for folder in listing.folders if folder}
    return Listing(files, sorted(folders))


def _composed(name: str, source: Path) -> str:
    try:
        return unicodedata.normalize("NFC", name.encode().decode())
    except UnicodeEncodeError:
        raise UserError(f"{source}: the name {name!a} is not UTF-8: rename it") from None


def _without_hidden(listing: Listing) -> Listing:
    def shown(name: str) -> bool:
        return not any(_is_hidden(part) for part in name.split("/"))

    return Listing(
        [file for file in listing.files if shown(file.name)],
        [folder for folder in listing.folders if shown(folder)],
    )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in LITTER


def _check_for_loop(folder: Path, source: Path) -> None:
    if not folder.is_symlink():
        return
    real = folder.resolve()
    above = [parent for parent in folder.parents if parent.is_relative_to(source)]
    if any(parent.resolve().is_relative_to(real) for parent in above):
        raise UserError(f"{folder} is a link to a folder that holds it: remove it")


def _size(file: Path) -> int:
    if not file.exists():
        raise UserError(f"{file} is a link to nothing: remove it")
    if not file.is_file():
        raise UserError(f"{file} is no file: remove it")
    return file.stat().st_size


def _raise(error: OSError) -> NoReturn:
    raise error
