import io

import numpy as np
import pytest
from PIL import Image

from imageclf.data.decoding import find_images
from imageclf.data.image_files import (
    FORMATS,
    START,
    begins_as_image,
    is_image,
    is_litter,
    is_other_image,
)

PICTURE = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


def test_an_ending_tells_an_image_in_either_case() -> None:
    names = ("a.JPG", "b.Tiff", "c.jfif", "d.jpe", "e.txt", "jpg", "f.jpg.part", "g.heic")
    assert [is_image(name) for name in names] == [True] * 4 + [False] * 4


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: known.name)
def test_the_start_tells_what_pillow_writes(known) -> None:
    file = io.BytesIO()
    PICTURE.save(file, known.name)
    start = file.getvalue()[:START]
    assert [other for other in FORMATS if other.start.match(start)] == [known]
    assert begins_as_image(start)
    assert not is_other_image("picture", start)
    assert Image.open(io.BytesIO(file.getvalue()), formats=[known.name]).format == known.name


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"P",
        b"Python 3 and more",
        b"P1 and P2 stand",
        b"BMW, Audi and other cars",
        b"II",
        b"\xff",
    ],
)
def test_other_files_begin_otherwise(start: bytes) -> None:
    assert not begins_as_image(start)
    assert not is_other_image("notes", start)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.HEIC", b"anything"),
        ("a", b"\x00\x00\x00\x18ftypheic"),
        ("a", b"8BPS\x00\x01"),
        ("a.nef", b""),
    ],
)
def test_an_image_of_another_kind_is_told_by_name_or_start(name: str, start: bytes) -> None:
    assert is_other_image(name, start)


@pytest.mark.parametrize(
    "name", ["@eaDir", "$RECYCLE.BIN", "Thumbs.db", "._a.jpg", ".ipynb_checkpoints", "lost+found"]
)
def test_litter_is_none_of_the_users_and_predict_leaves_it_out(name: str, tmp_path) -> None:
    assert is_litter(name)
    assert not is_litter(f"a{name}")
    (tmp_path / name).mkdir()
    PICTURE.save(tmp_path / name / "a.jpg", "JPEG")
    PICTURE.save(tmp_path / "b.jpg")
    assert find_images(tmp_path) == [tmp_path / "b.jpg"]
