import errno
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from imageclf.sources import debian
from imageclf.sources.debian import unpack_package
from imageclf.sources.download import UnavailableError

pytestmark = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="apt-get is not here"
)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A package archive on the disk that apt is told to use instead of the system's."""
    folder = tmp_path / "archive"
    folder.mkdir()
    settings = tmp_path / "apt.conf"
    settings.write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
    )
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    monkeypatch.setenv("APT_CONFIG", str(settings))
    return folder


def build(archive: Path, name: str, files: dict[str, str]) -> Path:
    tree = archive / "tree"
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\n"
    for path, text in {"DEBIAN/control": f"{control}Description: test\n", **files}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    package = archive / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", tree, package], check=True, capture_output=True)
    content = package.read_bytes()
    (archive / "Packages").write_text(
        f"{control}Filename: ./{package.name}\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )
    return package


def test_the_files_of_a_package_without_installing_it(archive, tmp_path):
    build(archive, "dataset-tiny", {"usr/share/datasets/tiny/images": "pixels"})
    (tmp_path / "work").mkdir()
    unpack_package("dataset-tiny", tmp_path / "work/unpacked")
    assert (tmp_path / "work/unpacked/usr/share/datasets/tiny/images").read_text() == "pixels"
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["unpacked"]


def test_a_package_that_differs_from_its_archives_list_is_refused(archive, tmp_path):
    package = build(archive, "dataset-tiny", {"images": "pixels"})
    package.write_bytes(package.read_bytes()[::-1])
    with pytest.raises(UnavailableError, match="Hash Sum mismatch"):
        unpack_package("dataset-tiny", tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_an_unknown_package_is_named(archive, tmp_path):
    build(archive, "dataset-tiny", {})
    with pytest.raises(UnavailableError, match="Unable to locate package dataset-other"):
        unpack_package("dataset-other", tmp_path / "unpacked")


def test_an_archive_that_cannot_be_reached_is_named(archive, tmp_path):
    with pytest.raises(UnavailableError, match=r"Failed to fetch file:.*Packages"):
        unpack_package("dataset-tiny", tmp_path / "unpacked")


def test_a_system_without_apt(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="apt-get is not installed here"):
        unpack_package("dataset-tiny", tmp_path / "unpacked")


def test_a_disk_without_room_is_not_filled(archive, tmp_path, monkeypatch):
    build(archive, "dataset-tiny", {"images": "pixels"})
    monkeypatch.setattr(debian, "ROOM", shutil.disk_usage(tmp_path).total)
    with pytest.raises(OSError, match="No space left") as caught:
        unpack_package("dataset-tiny", tmp_path / "unpacked")
    assert caught.value.errno == errno.ENOSPC
