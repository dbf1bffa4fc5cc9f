"""Sources of images as users have them, and as nobody should meet them."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from helpers.images import save_photographs
from helpers.loopback import Cut, FileServer, Status, running
from imageclf.data.archives import read_tar
from imageclf.files import UserError
from imageclf.sources import containers, download
from imageclf.sources.image_folder import fetch_images

NAMES = (
    *("猫/一 只.png", "猫/2.png", "猫/3.png"),
    *("dog/é.JPG", "dog/old/2.jpeg", "dog/3.png"),
)
RAW = Path("data/raw")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, ``project``, beside ``photos`` with six images and some litter."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    save_photographs(tmp_path / "photos", *NAMES)
    for litter in ("notes.txt", ".DS_Store", "__MACOSX/dog/._2.jpeg", ".git/x.png", "dog/a.txt"):
        path = tmp_path / "photos" / litter
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no image")
    return tmp_path


@pytest.fixture
def photos(project: Path) -> Path:
    return project / "photos"


def fetch(source: object) -> None:
    fetch_images(str(source), RAW, Console(file=io.StringIO()))


def content(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}


def written(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def as_zip(photos: Path, target: Path, prefix: str = "", **options: int) -> Path:
    with zipfile.ZipFile(target, "w", **options) as archive:
        for path in sorted(photos.rglob("*"), reverse=True):
            archive.write(path, prefix + str(path.relative_to(photos)))
    return target


def as_tar(photos: Path, target: Path, mode: str = "w", prefix: str = ".") -> Path:
    with tarfile.open(target, mode) as archive:
        archive.add(photos, prefix)
    return target


CONTAINERS: dict[str, Callable[[Path, Path], Path]] = {
    "zip": as_zip,
    "deflated zip": lambda photos, target: as_zip(photos, target, compression=8),
    "zip with a folder around all": lambda photos, target: as_zip(photos, target, "my photos/"),
    "tar": as_tar,
    "tar with a folder around all": lambda photos, target: as_tar(photos, target, prefix="a/b"),
    "tar.gz": lambda photos, target: as_tar(photos, target, "w:gz"),
    "tar.bz2": lambda photos, target: as_tar(photos, target, "w:bz2"),
    "tar.xz": lambda photos, target: as_tar(photos, target, "w:xz"),
}


def test_a_folder_becomes_a_tar_of_sorted_names_without_times(photos: Path) -> None:
    fetch(photos)
    with tarfile.open(RAW / "images.tar") as archive:
        infos = archive.getmembers()
    assert [info.name for info in infos] == sorted(NAMES)
    assert {
        (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) for info in infos
    } == {(0, 0, 0, "", "", 0o644)}
    assert content(RAW / "images.tar") == {name: (photos / name).read_bytes() for name in NAMES}
    assert json.loads((RAW / "source.json").read_text()) == {
        "name": "image_folder",
        "images": 6,
        "classes": ["dog", "猫"],
        "files": {
            "images.tar": {
                "bytes": (RAW / "images.tar").stat().st_size,
                "sha256": hashlib.sha256((RAW / "images.tar").read_bytes()).hexdigest(),
            }
        },
        "left_out": {
            "count": 2,
            "examples": [
                {"name": "dog/a.txt", "reason": "not an image by its name"},
                {"name": "notes.txt", "reason": "not an image by its name"},
            ],
        },
    }
    assert not list(Path(".downloads").iterdir())


@pytest.mark.parametrize("kind", CONTAINERS)
def test_the_container_changes_no_byte(photos: Path, project: Path, kind: str) -> None:
    fetch(photos)
    from_folder = (RAW / "images.tar").read_bytes()
    for path in photos.rglob("*"):
        os.utime(path, (1e9, 1e9))
    fetch(CONTAINERS[kind](photos, project / "archive"))
    assert (RAW / "images.tar").read_bytes() == from_folder
    assert not list(Path(".downloads").iterdir())


def test_accents_that_macos_took_apart_change_no_byte(photos: Path) -> None:
    fetch(photos)
    composed = (RAW / "images.tar").read_bytes()
    (photos / "dog/é.JPG").rename(photos / "dog/e\u0301.JPG")
    fetch(photos)
    assert (RAW / "images.tar").read_bytes() == composed


def test_links_in_a_folder_are_followed(photos: Path, project: Path) -> None:
    fetch(photos)
    expected = content(RAW / "images.tar")
    (project / "linked").mkdir()
    (project / "linked/猫").symlink_to(photos / "猫")
    (project / "linked/dog").mkdir()
    for name in NAMES[3:]:
        (project / "linked" / name).parent.mkdir(exist_ok=True)
        (project / "linked" / name).symlink_to(photos / name)
    fetch(project / "linked")
    assert content(RAW / "images.tar") == expected


def test_a_relative_source_is_one_of_the_project_that_dvc_names(
    photos: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(project))
    fetch("photos")
    assert len(read_tar(RAW / "images.tar")) == 6


def test_the_tar_says_where_its_files_lie(photos: Path) -> None:
    fetch(photos)
    whole = (RAW / "images.tar").read_bytes()
    for file in read_tar(RAW / "images.tar"):
        expected = (photos / file.name).read_bytes()
        assert whole[file.offset : file.offset + file.size] == expected


def test_an_archive_comes_over_http_and_goes_on_after_a_lost_connection(
    photos: Path, project: Path
) -> None:
    with running(FileServer()) as server:
        server.files["/my%20photos.tgz"] = as_tar(photos, project / "x", "w:gz").read_bytes()
        server.faults = [Cut(200)]
        fetch(f"{server.url}/my%20photos.tgz")
        assert server.sent.total() == len(server.files["/my%20photos.tgz"])
        assert len(read_tar(RAW / "images.tar")) == 6
        server.faults = [Cut(100)] + [Status(503)] * 3
        with pytest.raises(UserError, match=r"data.source: .*photos.tgz: HTTP 503"):
            fetch(f"{server.url}/my%20photos.tgz")
        assert any(path.suffix == ".part" for path in Path(".downloads").rglob("*"))
        assert len(read_tar(RAW / "images.tar")) == 6


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("http://127.0.0.1:9/a.zip", r"^data.source: http://127.0.0.1:9/a.zip: "),
        ("s3://bucket/photos.zip", "neither a path nor an address of http or https"),
        ("http://[::1/a.zip", "http://.::1/a.zip is no address: Invalid IPv6"),
        ("~nosuchuser/photos", "^~nosuchuser/photos: no home is known for that user"),
        ("nowhere", "nowhere does not exist"),
        ("", "data.source in params.yaml is empty: name a folder"),
    ],
)
def test_a_source_that_cannot_be_had_is_named(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fetch(source)
    assert not Path("data").exists()


def test_a_refused_archive_is_not_kept(photos: Path) -> None:
    with running(FileServer()) as server:
        server.files["/a.zip"] = b"<html>Log in to the network of the hotel</html>"
        with pytest.raises(UserError, match="neither a folder nor a zip or tar file"):
            fetch(f"{server.url}/a.zip")
    assert not list(Path(".downloads").iterdir())


def put(target: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(target, "w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


HARMFUL: dict[str, Callable[[Path], Path]] = {
    "tar ../": lambda target: put(target, (member("../../evil.png"), b"x")),
    "tar absolute": lambda target: put(target, (member("/tmp/evil.png"), b"x")),
    "tar link": lambda target: put(target, (member("a/1.png", tarfile.SYMTYPE, "/etc"), b"")),
    "tar hard link": lambda target: put(target, (member("a/1.png", tarfile.LNKTYPE, "x"), b"")),
    "tar device": lambda target: put(target, (member("a/1.png", tarfile.CHRTYPE), b"")),
    "tar pipe": lambda target: put(target, (member("a/1.png", tarfile.FIFOTYPE), b"")),
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_a_harmful_tar_is_refused_and_nothing_written(project: Path, kind: str) -> None:
    source = HARMFUL[kind](project / "archive")
    before = written(project)
    with pytest.raises(UserError, match=r"archive is refused: .*(could lead out|link or a device)"):
        fetch(source)
    assert written(project) == before
    assert not Path("/tmp/evil.png").exists()


@pytest.mark.parametrize(
    "name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "..\\e.png", "\\e"]
)
def test_a_zip_that_leads_out_is_refused(project: Path, name: str) -> None:
    with zipfile.ZipFile(project / "archive", "w") as archive:
        archive.writestr(name, b"x")
    before = written(project)
    with pytest.raises(UserError, match="could lead out"):
        fetch(project / "archive")
    assert written(project) == before


def test_backslashes_of_old_programs_part_folders(project: Path) -> None:
    with zipfile.ZipFile(project / "archive", "w") as archive:
        for path in sorted(path for path in (project / "photos").rglob("*") if path.is_file()):
            name = path.relative_to(project / "photos").as_posix()
            archive.write(path, name.replace("/", "\\"))
    fetch(project / "photos")
    expected = content(RAW / "images.tar")
    fetch(project / "archive")
    assert content(RAW / "images.tar") == expected


def test_a_zip_with_a_link_or_a_password_is_refused(project: Path) -> None:
    link = zipfile.ZipInfo("a/1.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(project / "link", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="a/1.png is a link or a device"):
        fetch(project / "link")
    whole = bytearray(as_zip(project / "photos", project / "secret").read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1  # in the directory at the end: encrypted
    (project / "secret").write_bytes(whole)
    with pytest.raises(UserError, match="is encrypted"):
        fetch(project / "secret")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_is_refused_before_it_fills_the_disk(
    project: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(containers, "HARMLESS", 1 << 22)
    bomb = bytes(1 << 24)
    source = project / "archive"
    if kind == "zip":
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/1.png", bomb)
    else:
        compress = {"tar.gz": gzip, "tar.bz2": bz2, "tar.xz": lzma}[kind].compress
        tar = put(project / "tar", (member("a/1.png"), bomb)).read_bytes()
        source.write_bytes(compress(tar))
    with pytest.raises(UserError, match="would unpack to more than 4.2 MB: it is an archive bomb"):
        fetch(source)
    assert not Path("data").exists()
    assert not list(Path(".downloads").iterdir())


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("left", [0.5, 0.9])
def test_an_archive_that_is_cut_short_is_refused(
    photos: Path, project: Path, kind: str, left: float
) -> None:
    whole = CONTAINERS[kind](photos, project / "archive").read_bytes()
    end = len(whole) if kind != "tar" else whole.rindex(b"ustar") + 400
    (project / "archive").write_bytes(whole[: int(left * end)])
    with pytest.raises(UserError) as caught:
        fetch(project / "archive")
    assert "\n" not in str(caught.value)
    assert str(project / "archive") in str(caught.value)
    assert not Path("data").exists()


def test_a_zip_with_wrong_bytes_is_refused(photos: Path, project: Path) -> None:
    whole = bytearray(as_zip(photos, project / "archive").read_bytes())
    place = whole.index(b"IHDR")
    whole[place] ^= 1
    (project / "archive").write_bytes(whole)
    with pytest.raises(UserError, match="is damaged.*Bad CRC-32"):
        fetch(project / "archive")
    assert not list(Path("data").iterdir())


def test_links_that_go_round_are_named(photos: Path) -> None:
    (photos / "dog/again").symlink_to(photos)
    with pytest.raises(UserError, match="dog/again is a link to a folder that holds it"):
        fetch(photos)
    (photos / "dog/again").unlink()
    (photos / "dog/there").symlink_to(photos / "猫")
    (photos / "猫/back").symlink_to(photos / "dog")
    with pytest.raises(UserError, match="is a link to a folder that holds it"):
        fetch(photos)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("nothing"), "is a link to nothing"),
        (lambda path: path.symlink_to(path), "is a link to nothing"),
        (os.mkfifo, "is no file"),
    ],
)
def test_what_is_no_file_is_named(
    photos: Path, make: Callable[[Path], object], message: str
) -> None:
    make(photos / "dog/4.png")
    with pytest.raises(UserError, match=f"dog/4.png {message}"):
        fetch(photos)


def test_a_name_that_is_not_utf_8_is_named(photos: Path) -> None:
    Path(os.fsdecode(os.fsencode(photos / "dog") + b"/\xff.png")).write_bytes(b"x")
    with pytest.raises(UserError, match=r"the name 'dog/\\udcff.png' is not UTF-8"):
        fetch(photos)


def test_two_files_of_one_name_are_refused(photos: Path, project: Path) -> None:
    save_photographs(photos, "dog/\u00e9.png", "dog/e\u0301.png")
    with pytest.raises(UserError, match="two files of the name dog/é.png"):
        fetch(photos)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "holds no images"),
        (("a/1.png", "a/2.png"), "one class, a"),
        (("train/a/1.png", "train/b/2.png", "test/c/3.png"), "class c is in test"),
        (("1.png", "2.png"), "no image lies in a class folder"),
        (("a/1.png", "b/2.png", "c/notes.txt"), "class folder c holds no image.*other files .1 .t"),
    ],
)
def test_folders_that_make_no_classes_are_one_line_with_the_source(
    project: Path, names: tuple[str, ...], message: str
) -> None:
    source = project / "other"
    source.mkdir()
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"x")
    with pytest.raises(UserError, match=message) as caught:
        fetch(source)
    assert str(caught.value).startswith(str(source))
    assert "\n" not in str(caught.value)
    assert not Path("data").exists()


def test_images_outside_of_the_classes_are_left_out_and_told(photos: Path) -> None:
    save_photographs(photos, "cover.png")
    fetch(photos)
    left_out = json.loads((RAW / "source.json").read_text())["left_out"]
    assert {"name": "cover.png", "reason": "in no class folder"} in left_out["examples"]
