import io
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from helpers.images import photograph
from helpers.params import ROOT
from imageclf.data.decoding import decode
from imageclf.data.image_files import FORMATS
from imageclf.data.opening import MAX_BYTES, ImageError, content_of

NO_FORMAT = "not an image, or of a format that is not supported"
NAMES = {known.name for known in FORMATS}


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    content = io.BytesIO()
    (image or photograph(1)).save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_every_format_that_is_named_is_read(kind: str) -> None:
    assert kind != "AVIF" or features.check("avif")
    found = decode(encoded(kind), (72, 96, 3)).astype(float)
    assert np.abs(found - np.asarray(photograph(1))).mean() < 9


@pytest.mark.parametrize("kind", ["DDS", "EPS", "ICNS", "ICO", "PCX", "SGI", "TGA"])
def test_no_other_format_is_opened_whatever_pillow_can(kind: str) -> None:
    with pytest.raises(ImageError, match=NO_FORMAT):
        decode(encoded(kind), (8, 8, 1))


def test_a_script_of_postscript_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {started}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    script = tmp_path / "image.png"
    script.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n{ } loop\n")
    with pytest.raises(ImageError, match=NO_FORMAT):
        decode(script, (8, 8, 1))
    assert not started.exists()
    # As it stands there, Pillow would have started it.
    with Image.open(script) as image, pytest.raises(OSError, match=r".*"):
        image.load()
    assert started.exists()


def test_pillow_is_given_files_in_one_place() -> None:
    opening = re.compile(r"\bImage\.open\(|\bimread\(|ImageFile\b.*open\(|decode_image\(")
    sources = [*ROOT.glob("src/**/*.py"), *ROOT.glob("stages/*.py")]
    found = [path.name for path in sources if opening.search(path.read_text())]
    assert found == ["opening.py"]


def test_the_page_on_images_names_every_format() -> None:
    page = (ROOT / "docs/images.md").read_text()
    rows = [row for row in page.splitlines() if row.startswith("| ") and "`." in row]
    told = [suffix for row in rows for suffix in re.findall(r"\.\w+", row.split("|")[2])]
    assert sorted(told) == sorted(suffix for known in FORMATS for suffix in known.suffixes)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(ImageError, match=f"{name}: not a regular file") as caught:
            decode(tmp_path / name, (8, 8, 1))
        assert caught.value.path == tmp_path / name
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        with pytest.raises(ImageError, match=r"socket.png: no such device"):
            decode(tmp_path / "socket.png", (8, 8, 1))


def test_an_enormous_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match=r"large.png: larger than 268.4 MB"):
        content_of(path)
    path.write_bytes(b"small")
    assert content_of(path) == b"small"


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "JPEG2000"])
def test_a_damaged_file_of_a_known_format_is_called_so(kind: str) -> None:
    damaged = encoded(kind)[:12] + bytes(100)
    with pytest.raises(ImageError, match=f"^image: damaged, or a kind of {kind} that is not supp"):
        decode(damaged, (8, 8, 1))


def test_scans_without_end_are_refused() -> None:
    content = encoded("JPEG", Image.new("RGB", (4000, 4000)), progressive=True)
    last = content.rindex(b"\xff\xc4")  # the tables of the last scan, and that scan
    repeated = content[:-2] + 600 * content[last:-2] + content[-2:]
    with pytest.raises(ImageError, match=r"61\d scans over its pixels, too many"):
        decode(repeated, (8, 8, 1))
    assert decode(content, (8, 8, 1)).max() == 0


# Bits flipped in the middle of the compressed pixels.
BROKEN = """
import io, sys
import numpy as np
from PIL import Image
from imageclf.data.decoding import decode
from imageclf.data.opening import ImageError

noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 200, 3)).astype(np.uint8))
for compression in ("tiff_lzw", "tiff_adobe_deflate", "group4", "jpeg", "packbits"):
    content = io.BytesIO()
    image = noise.convert("1") if compression == "group4" else noise
    image.save(content, "TIFF", compression=compression)
    for start in range(0, 400, 40):
        damaged = bytearray(content.getvalue())
        damaged[start + 8 :: 401] = bytes(each ^ 0x5A for each in damaged[start + 8 :: 401])
        try:
            decode(bytes(damaged), (8, 8, 1))
        except ImageError as error:
            print(compression, error.reason)
"""


def test_a_broken_tiff_prints_nothing_and_is_refused() -> None:
    command = [sys.executable, "-c", BROKEN]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "group4"):
        assert f"{compression} damaged (libtiff cannot decode all of it)" in done.stdout
