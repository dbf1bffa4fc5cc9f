"""The published data sets: the places that have them, and the digests of their files.

Every place has the same files, gzipped or not. The sha256 of the decompressed bytes is checked, so
the kept files do not depend on the place.
"""

import gzip
import hashlib
import itertools
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.filesize import decimal

from imageclf.files import DISK_IS_FULL, UserError, atomic_folder, write_json
from imageclf.sources.debian import unpack_package
from imageclf.sources.download import NotFoundError, UnavailableError, download
from imageclf.sources.python_package import PythonPackage
from imageclf.text import printable

MIRROR = "IMAGECLF_MIRROR"  # environment variable: a folder or URL that is tried first
# Outside all outs of stages, because DVC deletes outs before it runs a stage.
DOWNLOADS = Path(".downloads")
CHUNK = 1 << 20  # bytes
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class RawFile:
    """A file as it is kept: its name, size in bytes and sha256, decompressed.

    If less is published, ``bytes`` is an upper bound and ``sha256`` the first digits. ``gzipped``
    tells whether places may have the file gzipped.
    """

    name: str
    bytes: int
    sha256: str
    gzipped: bool = True

    @property
    def published(self) -> list[str]:
        """The names of the file in the places, the most likely first."""
        return [f"{self.name}.gz", self.name] if self.gzipped else [self.name]


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package, and the folder where it installs the files."""

    name: str
    folder: Path


@dataclass(frozen=True)
class DataSet:
    """The files of a data set, where it is published, and what to do if no place has it."""

    title: str
    homepage: str
    licence: str
    files: tuple[RawFile, ...]
    urls: tuple[str, ...] = ()
    debian: DebianPackage | None = None
    package: PythonPackage | None = None
    otherwise: str = ""

    @property
    def bytes(self) -> int:
        """The size of the files together."""
        return sum(file.bytes for file in self.files)


# Fashion-MNIST keeps MNIST's file names and sizes.
MNIST_FILES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
DIGITS_FILES = {"images-idx3-ubyte": 115_024, "labels-idx1-ubyte": 1_805}


def _files(sizes: dict[str, int], *digests: str) -> tuple[RawFile, ...]:
    return tuple(
        RawFile(name, size, digest)
        for (name, size), digest in zip(sizes.items(), digests, strict=True)
    )


DATA_SETS = {
    "digits": DataSet(
        title="Optical Recognition of Handwritten Digits",
        homepage="https://archive.ics.uci.edu/dataset/80",
        licence="CC-BY-4.0",
        files=_files(
            DIGITS_FILES,
            "d224a90b51e21e5d1332d34effc46c3a7d6244906f07c292c24213770d11ca7b",
            "ce71631c1f31ce56fa54f31d1d498fafacff59b001e6c30c4a5e29508aa277ad",
        ),
    ),
    "mnist": DataSet(
        title="MNIST",
        homepage="http://yann.lecun.com/exdb/mnist/",
        licence="CC-BY-SA-3.0",
        files=_files(
            MNIST_FILES,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        urls=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
    ),
    "fashion_mnist": DataSet(
        title="Fashion-MNIST",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        files=_files(
            MNIST_FILES,
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        urls=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        ),
        debian=DebianPackage("dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist")),
    ),
}


@dataclass(frozen=True)
class Source:
    """A place that may have the files, and its name for the user.

    ``get`` gives the path of a file, gzipped or not, or raises UnavailableError.
    """

    name: str
    get: Callable[[RawFile], Path]


def fetch(name: str, target: Path, console: Console) -> DataSet:
    """Write the raw folder of a data set, a key of DATA_SETS, as ``fetch_files`` does."""
    fetch_files(name, DATA_SETS[name], target, console)
    return DATA_SETS[name]


def fetch_files(name: str, data_set: DataSet, target: Path, console: Console) -> None:
    """Write a folder of known files, decompressed, and ``source.json``.

    The places that may have the files are tried in order, with a line for each; a file is taken
    only if its sha256 is the known one.

    Args:
        name: of the folder of these files in a mirror.
        data_set: the files and their places.
        target: the folder, which appears or is replaced only if everything is right.
        console: for the lines and, on a terminal, the progress.

    Raises:
        UserError: no place has the right files, or the files cannot be written.
    """
    work = DOWNLOADS / name
    try:
        work.mkdir(parents=True, exist_ok=True)
        with atomic_folder(target) as folder:
            _collect(data_set, _sources(name, data_set, work, console), folder, console)
            write_json(folder / "source.json", _description(name, data_set))
        shutil.rmtree(work)
    except OSError as error:
        if error.errno not in DISK_IS_FULL:
            raise UserError(f"cannot write {error.filename or target}: {error.strerror}") from error
        shutil.rmtree(work, ignore_errors=True)
        raise _disk_is_full(data_set, target) from error


def fetch_address(
    parameter: str, address: str, folder: Path, console: Console, sha256: str | None = None
) -> Path:
    """The file at an http address, downloaded to ``folder`` unless it is there.

    Raises:
        UserError: it is not available; the message names the parameter that holds the address.
    """
    try:
        url = urlsplit(address)
    except ValueError as error:
        raise UserError(f"{parameter}: {address} is no address: {error}") from error
    if url.scheme not in {"http", "https"}:
        raise UserError(f"{parameter}: {address} is neither a path nor an address of http or https")
    target = folder / hashlib.sha256(f"{address} {sha256}".encode()).hexdigest()[:16]
    if not target.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            download(address, target, console, sha256=sha256, largest=free)
        except UnavailableError as error:
            raise UserError(f"{parameter}: {_without_password(address)}: {error}") from error
    return target


def in_project(path: str) -> Path:
    """A path relative to the project's root, also in DVC's temporary folders.

    Raises:
        UserError: it begins with ``~`` and there is no such user.
    """
    try:
        whole = Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: no home is known for that user: write the whole path") from error
    return Path(os.environ.get("DVC_ROOT", "."), whole)


def _without_password(url: str) -> str:
    return re.sub("//[^/]*@", "//", url)


def _disk_is_full(data_set: DataSet, target: Path) -> UserError:
    places = [place for place in (Path.cwd(), target.parent.resolve()) if place.exists()]
    free, place = min((shutil.disk_usage(place).free, place) for place in places)
    return UserError(
        f"the disk is full: {data_set.title} needs {decimal(2 * data_set.bytes)} while it is "
        f"unpacked ({decimal(data_set.bytes)} to keep), but {place} has {decimal(free)} free; "
        "make room and try again"
    )


def _description(name: str, data_set: DataSet) -> dict[str, Any]:
    """The content of source.json, which does not depend on the place of the files."""
    return {
        "name": name,
        "title": data_set.title,
        "homepage": data_set.homepage,
        "licence": data_set.licence,
        "files": {
            file.name: {"bytes": file.bytes, "sha256": file.sha256} for file in data_set.files
        },
    }


def _collect(data_set: DataSet, sources: Iterator[Source], folder: Path, console: Console) -> None:
    """Try the sources in order until the folder holds every file."""
    missing, refusals = list(data_set.files), []
    for source in sources:
        console.print(f"trying {source.name}")
        try:
            while missing:
                file = missing[0]
                taken = folder / file.name
                _take(source.get(file), taken, file)
                console.print(f"  {file.name}: {decimal(taken.stat().st_size)}, sha256 verified")
                missing.pop(0)
        except UnavailableError as error:
            console.print(f"  {printable(error)}", style="yellow")
            refusals.append(f"{source.name} ({error})")
        else:
            return
    names = ", ".join(file.published[0] for file in data_set.files)
    ways = [f"install Debian's package {data_set.debian.name}"] if data_set.debian else []
    otherwise = "".join(f", or {way}" for way in (*ways, data_set.otherwise) if way)
    raise UserError(
        f"no source gave {data_set.title}: {'; '.join(refusals)}. "
        f"Set {MIRROR} to a folder or URL that holds {names}{otherwise}"
    )


def _take(packed: Path, target: Path, file: RawFile) -> None:
    """Unpack a file of a source; remove it if it was downloaded and is wrong."""
    try:
        _unpack(packed, target, file)
    except UnavailableError:
        if packed.is_relative_to(DOWNLOADS):
            packed.unlink()
        raise


def _unpack(packed: Path, target: Path, file: RawFile) -> None:
    """Write the decompressed bytes and compare them with the known ones."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as output:
        for piece in _pieces(packed):
            size += len(piece)
            if size > file.bytes:
                raise UnavailableError(f"{file.name} refused: more than {file.bytes:,} bytes")
            digest.update(piece)
            output.write(piece)
        output.flush()
        os.fsync(output.fileno())
    if not digest.hexdigest().startswith(file.sha256):
        raise UnavailableError(
            f"{file.name} refused: its sha256 is {digest.hexdigest()}, not {file.sha256}"
        )


def _pieces(packed: Path) -> Iterator[bytes]:
    """The bytes of a file, decompressed if it is gzipped, in pieces of bounded size."""
    try:
        with packed.open("rb") as file:
            is_gzip = file.peek(2)[:2] == GZIP
            stream = gzip.GzipFile(fileobj=file) if is_gzip else file
            while piece := stream.read(CHUNK):
                yield piece
    except (OSError, EOFError, zlib.error) as error:
        raise UnavailableError(f"{packed.name} refused: {error}") from error


def _sources(name: str, data_set: DataSet, work: Path, console: Console) -> Iterator[Source]:
    """Every place that may have a data set, the nearest first."""
    if name == "digits":
        yield Source("scikit-learn's copy", partial(_from_scikit_learn, work))
    if mirror := os.environ.get(MIRROR, "").rstrip("/"):
        places = (f"{mirror}/{name}", mirror)
        yield Source(
            f"the mirror {_without_password(mirror)}",
            partial(_from_web, places, work, console)
            if "://" in mirror
            else partial(_from_folders, places),
        )
    if data_set.package and data_set.package.folder:
        yield Source(
            f"the installed package {data_set.package.name}",
            partial(_from_folders, (data_set.package.folder,)),
        )
    if data_set.debian:
        yield Source(
            f"the installed {data_set.debian.folder}",
            partial(_from_folders, (data_set.debian.folder,)),
        )
    for url in data_set.urls:
        yield Source(url, partial(_from_web, (url,), work, console))
    if data_set.debian:
        yield Source(
            f"Debian's package {data_set.debian.name}",
            partial(_from_debian, data_set.debian, work, console),
        )


def _from_folders(folders: Sequence[str | Path], file: RawFile) -> Path:
    for folder, name in itertools.product(folders, file.published):
        path = Path(folder, name)
        if path.is_file():
            return path
    raise UnavailableError(f"there is no {file.published[0]}")


def _from_web(folders: Sequence[str], work: Path, console: Console, file: RawFile) -> Path:
    for folder, name in itertools.product(folders, file.published):
        url = f"{folder}/{name}"
        path = work / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
        try:
            if not path.exists():  # not yet downloaded by an interrupted fetch
                # Compression makes no file much longer.
                download(url, path, console, largest=file.bytes + CHUNK)
        except NotFoundError as error:
            answer = error
        else:
            return path
    raise UnavailableError(f"there is no {file.published[0]}: {answer}")


def _from_scikit_learn(work: Path, file: RawFile) -> Path:
    """Write scikit-learn's digits as IDX, their pixels scaled from 0..16 to 0..255."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16))
    values = {"images-idx3-ubyte": images, "labels-idx1-ubyte": digits.target}[file.name]
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    path = work / file.name
    path.write_bytes(header + values.astype(np.uint8).tobytes())
    return path


def _from_debian(package: DebianPackage, work: Path, console: Console, file: RawFile) -> Path:
    unpacked = work / package.name
    if not unpacked.exists():
        with console.status(f"downloading {package.name} with apt-get"):
            unpack_package(package.name, unpacked)
    return _from_folders((unpacked / package.folder.relative_to("/"),), file)
