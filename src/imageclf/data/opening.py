"""Open image files with Pillow, only here, and give the reason if that fails."""

import ctypes
import io
import logging
import os
import stat
import threading
import warnings
from pathlib import Path

from PIL import Image, TiffImagePlugin, UnidentifiedImageError, _imaging
from rich.filesize import decimal

from imageclf.data.image_files import FORMATS, START
from imageclf.files import UserError

# Pillow looks at the content of a file, not at its suffix, and uses none of its other readers: one
# of them starts Ghostscript.
_FORMAT_NAMES = tuple(known.name for known in FORMATS)
# 256 MiB as RGB, where Pillow begins to warn. A file of a few bytes can claim far more.
MAX_PIXELS = 2**28 // 3
MAX_BYTES = 2**28  # of a file
# Each scan of a progressive JPEG passes over all pixels, and may have only a few bytes. Cameras and
# editors write about ten scans.
MAX_SCANNED = 2**33
_JPEG_SCAN = b"\xff\xda"
_GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_CUT_SHORT = "cut short: the end of the file is missing"

# Pillow's own reader of uncompressed TIFF confuses planes of 16 bits and subsampled YCbCr.
TiffImagePlugin.READ_LIBTIFF = True
# Pillow also logs some faults of a file, by default to standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class ImageError(UserError):
    """A file that is no usable image: its ``path`` (None for bytes), and the ``reason``."""

    def __init__(self, path: Path | None, reason: str) -> None:
        super().__init__(f"{path or 'image'}: {reason}")
        self.path = path
        self.reason = reason


class _PillowSilenced:
    """Suppresses Pillow's warnings about unusual files; faults are raised.

    The filters of the warnings module are global to the process. All threads that decode share one
    change of them: the first thread makes it, the last one reverts it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module="PIL")
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._filters.__exit__(None, None, None)


pillow_silenced = _PillowSilenced()
_libtiff = threading.local()


def _note_fault(_module: bytes, message: bytes, _values: int) -> None:
    _libtiff.faults.append(message)


# libtiff writes its error messages to standard error unless they are taken.
_take_fault = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)(_note_fault)
ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(_take_fault)


def content_of(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        ImageError: it is a pipe or a device, or larger than MAX_BYTES.
        OSError: it cannot be read.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(path, "not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError(path, f"larger than {decimal(MAX_BYTES)}")
        return file.read(status.st_size)


def opened(content: bytes) -> Image.Image:
    """An image of one of FORMATS; only its header has been read.

    Raises:
        ImageError: it is no such image, or has too many pixels.
        Exception: nearly any, for a damaged file: see ``reason_of``.
    """
    if not content:
        raise ImageError(None, "the file is empty")
    if content.startswith(_GIT_LFS_POINTER):
        raise ImageError(None, "a Git LFS pointer instead of the image: run `git lfs pull`")
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMAT_NAMES)
    except UnidentifiedImageError:
        known = next((each.name for each in FORMATS if each.start.match(content[:START])), "")
        reason = f"damaged, or a kind of {known}" if known else "not an image, or of a format"
        raise ImageError(None, f"{reason} that is not supported") from None
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    if image.info.get("progressive"):
        scans = content.count(_JPEG_SCAN)
        if scans * image.width * image.height > MAX_SCANNED:
            raise ImageError(None, f"{scans} scans over its pixels, too many to unpack safely")
    return image


def load(image: Image.Image) -> None:
    """Read the pixels of an opened image.

    Raises:
        ImageError: libtiff found a fault, after which Pillow may continue with wrong pixels.
        Exception: nearly any, for a damaged file: see ``reason_of``.
    """
    _libtiff.faults = []
    try:
        image.load()
    except Exception:
        _check_faults()
        raise
    _check_faults()


def reason_of(error: Exception) -> str:
    """What is wrong with an image, from the exception raised on reading it."""
    if isinstance(error, ImageError):
        return error.reason
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels, too many to unpack safely"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if "truncated" in str(error).lower():
        return _CUT_SHORT
    return f"damaged ({' '.join(str(error).split()) or type(error).__name__})"


def _open_at_once(path: str, flags: int) -> int:
    """Do not wait for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _check_faults() -> None:
    if any(b"Read error" in fault for fault in _libtiff.faults):
        raise ImageError(None, _CUT_SHORT)
    if _libtiff.faults:
        raise ImageError(None, "damaged (libtiff cannot decode all of it)")
