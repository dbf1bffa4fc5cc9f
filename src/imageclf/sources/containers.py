"""Folders, zip and tar files in one form: named files that can be read.

No file is unpacked under the name that an archive gives it: the files are read one by one.
"""

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn, cast

from rich.filesize import decimal

from imageclf.data.archives import CHUNK, File, check_end
from imageclf.data.image_files import START, begins_as_image, is_litter
from imageclf.files import UserError
from imageclf.sources.zip_names import decoded_names

# Images hardly compress: an archive that grows more than this, and to over HARMLESS, is a bomb.
MOST_EXPANSION = 100
HARMLESS = 1 << 30  # bytes
ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second one is empty
COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
# Other files that users may give, by their first bytes.
OTHERS = {
    b"Rar!\x1a\x07": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"PAR1": "a Parquet file",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"MZ": "a program for Windows",
    b"%PDF": "a PDF",
}
# lzma asks for as much memory as damaged bytes name, which raises a MemoryError.
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile),
    *(lzma.LZMAError, zlib.error, EOFError, MemoryError),
)
# What zipfile and tarfile also raise for damaged bytes.
MANGLED = (*DAMAGED, struct.error, ValueError, OverflowError, LookupError, RecursionError)


@dataclass(frozen=True)
class Listing:
    """The content of a folder or archive; ``folders`` are the paths of all folders in it."""

    files: list[File]
    folders: list[str]


@contextmanager
def opened(source: Path, work: Path) -> Iterator[Listing]:
    """The files of a folder, zip or tar (plain, gzip, bzip2, xz), without litter.

    The first bytes tell the kind of an archive. A compressed tar is unpacked as a whole into the
    existing folder ``work``.

    Raises:
        UserError: the source is missing, damaged or of another kind, or has harmful content: names
            that lead out of it, links, devices, a bomb.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist: data.source names a folder, a zip or tar file")
    if not (source.is_dir() or source.is_file()):
        raise UserError(f"{source} is a device or a pipe: data.source names a folder or a file")
    with ExitStack() as stack:
        with _damage_told(source, MANGLED):
            listing = _in_order(_listing(source, work, stack), source)
        with _damage_told(source, DAMAGED):
            yield listing


def _listing(source: Path, work: Path, stack: ExitStack) -> Listing:
    """The content in any order; the stack keeps the archive open."""
    if source.is_dir():
        return _in_folder(source)
    with source.open("rb") as file:
        start = file.read(START)
    if start.startswith(ZIP):
        return _in_zip(stack.enter_context(zipfile.ZipFile(source)), source)
    _check_kind(start, source)
    plain = _plain_tar(source, start, work)
    archive = stack.enter_context(tarfile.TarFile(plain))
    listing = _in_tar(archive, source)
    check_end(plain, archive.offset)
    return listing


@contextmanager
def _damage_told(source: Path, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        raise UserError(f"{source} cannot be unpacked: {error}") from error
    except errors as error:
        raise UserError(
            f"{source} is damaged, or neither a folder nor a zip or tar file ({error})"
        ) from error


def _check_kind(start: bytes, source: Path) -> None:
    kind = next((kind for magic, kind in OTHERS.items() if start.startswith(magic)), "")
    if begins_as_image(start):
        kind = "an image"
    if kind or not start:
        raise UserError(
            f"{source} is {kind or 'empty'}: data.source names a folder of images, or a zip or tar "
            "file (plain, gzip, bzip2 or xz) of one"
        )


def _in_folder(source: Path) -> Listing:
    """The content of a folder; links are followed, as the user made them."""
    files, folders = [], []
    for above, inside, names in os.walk(source, followlinks=True, onerror=_raise):
        inside[:] = [name for name in inside if not is_litter(name)]
        for path in (Path(above, name) for name in inside):
            _check_for_loop(path, source)
            folders.append(path.relative_to(source).as_posix())
        for path in (Path(above, name) for name in names if not is_litter(name)):
            open_file = cast("Callable[[], IO[bytes]]", partial(path.open, "rb"))
            files.append(File(path.relative_to(source).as_posix(), _size(path), open_file))
    return Listing(files, folders)


def _in_zip(archive: zipfile.ZipFile, source: Path) -> Listing:
    files, folders = [], []
    infos = archive.infolist()
    if infos and min(info.header_offset for info in infos) > 0:
        raise zipfile.BadZipFile("its directory does not list the file that it begins with")
    for info, told in zip(infos, decoded_names(infos), strict=True):
        name = _safe(told, source)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise UserError(f"{source} is refused: {told} is a link or a device")
        if info.flag_bits & 1:
            raise UserError(f"{source} is encrypted: give it without a password")
        if info.is_dir():
            folders.append(name)
        else:
            files.append(File(name, info.file_size, partial(_open_in_zip, archive, info, source)))
    _check_expansion(sum(file.size for file in files), source)
    return _without_litter(Listing(files, folders))


def _open_in_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path) -> IO[bytes]:
    # RuntimeError: encrypted according to the file's own header only.
    with _damage_told(source, (*MANGLED, RuntimeError)):
        return archive.open(info)


def _in_tar(archive: tarfile.TarFile, source: Path) -> Listing:
    files, folders = [], []
    for info in archive:
        name = _safe(info.name, source)
        if info.isdir():
            folders.append(name)
        elif info.isreg():
            # It gives None only if this is no regular file.
            extract = cast("Callable[[], IO[bytes]]", partial(archive.extractfile, info))
            files.append(File(name, info.size, extract))
        else:
            raise UserError(f"{source} is refused: {info.name} is a link or a device")
    # A sparse file may claim any size.
    _check_expansion(sum(file.size for file in files), source)
    return _without_litter(Listing(files, folders))


def _plain_tar(source: Path, start: bytes, work: Path) -> Path:
    """The tar itself, or its unpacked copy: a compressed tar has no random access."""
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
            f"{decimal(max(HARMLESS, MOST_EXPANSION * packed))}: it is an archive bomb"
        )


def _safe(name: str, source: Path) -> str:
    """The name without ``./`` before and ``/`` after it; refused if it leads out of the source.

    Old programs on Windows write backslashes between folders.
    """
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts:
        raise UserError(f"{source} is refused: the path {name} could lead out of it")
    return "/".join(part for part in parts if part not in {"", "."})


def _in_order(listing: Listing, source: Path) -> Listing:
    """Sorted by name, in Unicode's composed form: macOS decomposes accents.

    The folders include those that have no entry of their own in an archive.
    """
    files = [File(_composed(file.name, source), file.size, file.open) for file in listing.files]
    files.sort(key=lambda file: file.name)
    for one, other in pairwise(files):
        if one.name == other.name:
            raise UserError(f"{source} holds two files of the name {one.name}: keep one")
    folders = {_composed(folder, source) for folder in listing.folders if folder}
    folders |= {str(above) for file in files for above in PurePosixPath(file.name).parents}
    return Listing(files, sorted(folders - {"."}))


def _composed(name: str, source: Path) -> str:
    try:
        return unicodedata.normalize("NFC", name.encode().decode())
    except UnicodeEncodeError:
        raise UserError(f"{source}: the name {name!a} is not UTF-8: rename it") from None


def _without_litter(listing: Listing) -> Listing:
    def shown(name: str) -> bool:
        return not any(is_litter(part) for part in name.split("/"))

    return Listing(
        [file for file in listing.files if shown(file.name)],
        [folder for folder in listing.folders if shown(folder)],
    )


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
