"""Which files of a source are images, alike for folders, zip and tar files."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from helpers.images import photograph, save_photographs
from imageclf.data.class_folders import Place
from imageclf.files import UserError
from imageclf.sources.collection import Collected, class_table, counted
from imageclf.sources.image_folder import fetch_images

RAW = Path("data/raw")
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photographs each of cats and dogs, beside the current folder."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    save_photographs(
        tmp_path / "photos", *(f"{c}/{i}.jpg" for c in ("cat", "dog") for i in range(4))
    )
    return tmp_path / "photos"


def packed(folder: Path, kind: str) -> Path:
    """The folder itself, or an archive of its files, without entries for its folders."""
    if kind == "folder":
        return folder
    target = folder.with_suffix(f".{kind}")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(folder))
    else:
        with tarfile.open(target, "w") as archive:
            for path in files:
                archive.add(path, str(path.relative_to(folder)))
    return target


@pytest.fixture(params=["folder", "zip", "tar"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def fetch(source: Path, **splits: str) -> Collected:
    return fetch_images(str(source), RAW, Console(file=io.StringIO()), splits)


def refused(source: Path, **splits: str) -> str:
    with pytest.raises(UserError) as caught:
        fetch(source, **splits)
    assert "\n" not in str(caught.value)
    assert not RAW.exists()
    return str(caught.value)


def test_what_a_file_is_decides_whatever_its_name(photos: Path, kind: str) -> None:
    for number, name in enumerate(("1.jfif", "2.jpe", "3.JPEG", "4", "5.txt", "6.download")):
        photograph(20 + number).save(photos / "cat" / name, "JPEG")
    (photos / "cat/notes").write_text("P1 and P2 are no pictures, nor is BM")
    collected = fetch(packed(photos, kind))
    assert len(collected.images) == 14
    assert [file["name"] for file in collected.left_out] == ["cat/notes"]


@pytest.mark.parametrize("litter", ["@eaDir/0.jpg", "$RECYCLE.BIN", "__MACOSX/cat", "lost+found"])
def test_thumbnails_and_waste_are_neither_images_nor_classes(
    photos: Path, kind: str, litter: str
) -> None:
    expected = fetch(photos).images
    for above in ("", "cat/", "dog/"):
        save_photographs(photos / f"{above}{litter}", *(f"{i}.jpg" for i in range(5)))
    collected = fetch(packed(photos, kind))
    assert [image.name for image in collected.images] == [image.name for image in expected]
    assert collected.class_names == ["cat", "dog"]


def test_a_class_of_files_that_cannot_be_read_is_refused_by_name(photos: Path, kind: str) -> None:
    (photos / "bird").mkdir()
    for number in range(8):
        (photos / f"bird/IMG_{number}.HEIC").write_bytes(b"anything")
    assert "the class folder bird holds no image that can be read, but other files (8 .heic)" in (
        refused(packed(photos, kind))
    )


def test_images_of_unsupported_formats_are_kept_for_the_limit_and_told(
    photos: Path, kind: str
) -> None:
    (photos / "cat/a.heic").write_bytes(b"anything")
    (photos / "cat/b").write_bytes(HEIC)
    collected = fetch(packed(photos, kind))
    assert collected.unsupported == ["cat/a.heic", "cat/b"]
    assert len(collected.images) == 10


def test_a_class_of_too_few_images_is_told_with_the_number(photos: Path, kind: str) -> None:
    save_photographs(photos, "bird/1.jpg", "bird/2.jpg")
    (photos / "bird/3.heic").write_bytes(HEIC)
    assert refused(packed(photos, kind)).endswith(
        ": too few images in bird (2): each class needs 3, one each for train, val, test"
    )


def test_with_a_test_split_two_images_are_enough(photos: Path) -> None:
    photos.rename(photos.with_name("train"))
    above = photos.with_name("both")
    above.mkdir()
    photos.with_name("train").rename(above / "train")
    save_photographs(above / "test", "cat/1.jpg", "dog/1.jpg")
    for number in range(2):
        (above / f"train/cat/{number}.jpg").unlink()
    assert len(fetch(above).images) == 8
    (above / "train/cat/2.jpg").unlink()
    with pytest.raises(
        UserError, match=r"in cat \(1\): each class needs 2, one each for train, val$"
    ):
        fetch(above)


def test_split_folders_of_other_names_become_those_of_the_raw_folder(
    photos: Path, kind: str
) -> None:
    above = photos.with_name("both")
    above.mkdir()
    photos.rename(above / "training_set")
    save_photographs(above / "test_set", "cat/1.jpg", "dog/1.jpg", "cat/2.jpg", "dog/2.jpg")
    collected = fetch(packed(above, kind))
    names = [image.name for image in collected.images]
    assert names[:3] == ["test/cat/1.jpg", "test/cat/2.jpg", "test/dog/1.jpg"]
    described = json.loads((RAW / "source.json").read_text())
    assert described["layout"] == {"test": ["test_set/*"], "train": ["training_set/*"]}
    fetch(packed(above, kind), train="test_set", val="training_set")
    described = json.loads((RAW / "source.json").read_text())
    assert described["layout"] == {"train": ["test_set/*"], "val": ["training_set/*"]}


def test_two_images_that_come_to_one_name_are_refused(photos: Path) -> None:
    save_photographs(photos, "dog/a/0.jpg", "a/dog/0.jpg")
    with pytest.raises(UserError, match="another image would both be train/dog/a/0.jpg"):
        fetch_images(str(photos), RAW, Console(file=io.StringIO()), {"train": [".", "a"]})


@pytest.mark.parametrize(
    ("names", "others", "message"),
    [
        (
            ("train/cat.0.jpg", "train/dog.0.jpg", "test/1.jpg"),
            (),
            "no image lies in a class folder, such as test/1.jpg: put the images of each class "
            "into a folder that bears its name, such as test/CLASS/1.jpg",
        ),
        (
            ("images/1.jpg", "images/2.jpg"),
            ("annotations/1.xml", "annotations/2.xml"),
            "such as images/1.jpg, and labels in files such as annotations/1.xml are not read",
        ),
        (
            ("train/1.jpg", "test/1.jpg"),
            ("labels.csv",),
            "such as test/1.jpg, and labels in files such as labels.csv are not read",
        ),
    ],
)
def test_images_without_class_folders_are_told_what_is_the_matter(
    tmp_path: Path, kind: str, names: tuple[str, ...], others: tuple[str, ...], message: str
) -> None:
    save_photographs(tmp_path / "flat", *names)
    for name in others:
        (tmp_path / "flat" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "flat" / name).write_text("1,cat")
    assert message in refused(packed(tmp_path / "flat", kind))


def test_files_are_counted_by_kind() -> None:
    names = ["a.TXT", "b.txt", "c", "d.csv", *(f"e.{end}" for end in ("a", "b", "c", "d"))]
    assert counted(names) == "2 .txt, 1 without a suffix, 1 .csv, 1 .a, 1 .b, 2 others"


@pytest.mark.parametrize("classes", [2, 10, 11, 500])
def test_the_table_fits_a_terminal(classes: int) -> None:
    names = [f"class {number:03} {'猫' * 60}\x1b[2J" for number in range(classes)]
    places = [Place("", split, name) for name in names for split in ("train", "test", "train")]
    file = io.StringIO()
    Console(file=file, width=80).print(class_table(places))
    lines = file.getvalue().splitlines()
    assert len(lines) == min(classes, 10) + 2
    assert lines[0].split() == ["class", "train", "test"]
    assert lines[-1].split()[-2:] == [f"{2 * classes:,}", f"{classes:,}"]
    assert "\x1b" not in file.getvalue()
    assert "e98c" not in file.getvalue()
    if classes > 10:
        assert lines[-2].split() == [
            f"{classes - 9}",
            "others",
            f"{2 * (classes - 9)}",
            f"{classes - 9}",
        ]
