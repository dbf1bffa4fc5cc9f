"""Image files changed at random: they are read or refused, and nothing else happens."""

import io
import resource
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.image_bytes import BLACK_IS_ZERO, CMYK, RGB, SEPARATE, bmp, png, stored, tiff
from helpers.images import photograph
from helpers.params import ROOT
from helpers.watch import Watch
from imageclf.data.decoding import read
from imageclf.data.image_files import FORMATS
from imageclf.data.opening import ImageError
from imageclf.sections import Fitting

MEMORY = 3 << 30  # bytes that decoding may take on top, with the most pixels that are allowed
EXAMPLES = 3000  # of each format
SECONDS = 30  # for one image
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{"progressive": True}, {"subsampling": 0, "restart_marker_rows": 1}],
    "PNG": [{"optimize": True}],
    "GIF": [{"interlace": False}],
    "WEBP": [{"lossless": True}],
    "JPEG2000": [{"irreversible": True, "tile_size": (64, 64)}],
    "TIFF": [{"compression": each} for each in ("tiff_lzw", "jpeg", "packbits", "zstd", "lzma")],
}
MODES = {
    "JPEG": ("L", "CMYK"),
    "PNG": ("1", "P", "LA", "RGBA", "I;16"),
    "GIF": ("P",),
    "WEBP": ("RGBA",),
    "AVIF": ("RGBA",),
    "JPEG2000": ("L", "RGBA", "I;16"),
    "BMP": ("1", "P", "RGBA"),
    "TIFF": ("1", "P", "LA", "RGBA", "CMYK", "LAB", "YCbCr", "I", "F", "I;16"),
    "PPM": ("1", "L", "I", "F"),
}
SHADES = np.linspace(0, 1, 24 * 32 * 4).reshape(24, 32, 4)
BY_HAND = {
    "TIFF": [
        tiff(stored(SHADES[..., :1], 12), 12, BLACK_IS_ZERO),
        tiff(stored(SHADES[..., :3], 16), 16, RGB, planes=True, order=">", deflated=True),
        tiff(stored(SHADES, 16), 16, RGB, extra=(SEPARATE,)),
        tiff(stored(SHADES, 8), 8, CMYK, planes=True),
    ],
    "PNG": [
        png(stored(SHADES[..., :3], 16), 16, 2),
        png(stored(SHADES[..., :1], 4), 4, 0, (3,)),
    ],
    "BMP": [bmp(stored(SHADES[..., 0], 16), (0xF800, 0x07E0, 0x001F))],
    "JPEG2000": [path.read_bytes() for path in ROOT.glob("tests/unit/data/jpeg2000/*")],
    "PPM": [b"P3 2 2 1023\n" + b"1 2 3 " * 4, b"P2 2 2 9\n" + b"1 2 " * 2],
}


def written(kind: str) -> list[bytes]:
    """Whole files of a format, each in another way."""
    whole = photograph(1, 48, 32)
    images = [(whole, options) for options in [{}, *OPTIONS.get(kind, [])]]
    images += [(in_mode(whole, mode), {}) for mode in MODES.get(kind, ())]
    files = []
    for image, options in images:
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return files + BY_HAND.get(kind, [])


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode in {"I", "F", "I;16"}:
        return image.convert("L").convert("I").convert(mode)
    return image.convert("RGBA").convert(mode) if mode == "LAB" else image.convert(mode)


@st.composite
def changed(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """A file with bytes overwritten, put in, taken out or moved, mostly near its start."""
    content = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(content)) | st.integers(0, min(len(content), 300)))
        how = draw(st.sampled_from(["set", "set", "set", "put", "take", "cut", "graft"]))
        data = draw(st.binary(min_size=1, max_size=4) | st.sampled_from([b"\0\0\0\0", b"\xff" * 4]))
        length = draw(st.integers(1, 64))
        if how == "set":
            content[place : place + len(data)] = data
        elif how == "put":
            content[place:place] = data
        elif how == "take":
            del content[place : place + length]
        elif how == "cut":
            del content[len(content) - place :]
        else:
            other = draw(st.sampled_from(files))
            content[place:] = other[place:]
    return bytes(content)


def with_checks(content: bytes) -> bytes:
    """The chunks of a PNG with right checksums, so that a change gets past them."""
    fixed, at = bytearray(content), 8
    while at + 12 <= len(fixed):
        end = at + 8 + int.from_bytes(fixed[at : at + 4])
        fixed[end : end + 4] = zlib.crc32(fixed[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(fixed[: len(content)])


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@contextmanager
def _bounded(watch: Watch) -> Iterator[None]:
    before, start = _peak(), time.process_time()
    with watch.nothing_starts():
        yield
    assert time.process_time() - start < SECONDS
    assert _peak() - before < MEMORY


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", [known.name for known in FORMATS])
def test_a_changed_file_is_read_or_refused(
    kind: str, watch: Watch, capfd: pytest.CaptureFixture[str]
) -> None:
    files = written(kind)
    for content in files:
        _try(content, watch)
    read_or_refused = {True: 0, False: 0}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(changed(files))
    def check(content: bytes) -> None:
        content = with_checks(content) if kind == "PNG" else content
        read_or_refused[_try(content, watch)] += 1

    check()
    assert capfd.readouterr() == ("", "")
    assert min(read_or_refused.values()) > EXAMPLES / 100, read_or_refused


def _try(content: bytes, watch: Watch) -> bool:
    """Whether it is read."""
    with _bounded(watch):
        try:
            found = read(content, (8, 8, 3), Fitting("crop"))
        except ImageError as refused:
            found, reason = None, refused.reason
    if found is None:
        assert reason.isprintable()
        assert reason
        return False
    assert found.pixels.shape == (8, 8, 3)
    return True
