"""What tells a whole archive from a damaged one, and one kind from another."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from imageclf.data.archives import File, read_tar, write_tar
from imageclf.files import UserError
from imageclf.sources.containers import opened

CONTENT = {f"{name}/{i}.png": f"{name} {i}".encode() * 100 for name in "ab" for i in range(3)}


def tar_of(content: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zip_of(content: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file.getvalue()


def headers(tar: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return [info.offset for info in archive]


def read(data: bytes, folder: Path) -> dict[str, bytes]:
    source = folder / "archive"
    source.write_bytes(data)
    with opened(source, folder) as listing:
        found = {}
        for file in listing.files:
            with file.open() as content:
                found[file.name] = content.read()
        return found


WHOLE = tar_of(CONTENT)
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "a flipped bit in a name": lambda tar, at: flipped(tar, at + 2),
    "a flipped bit in a checksum": lambda tar, at: flipped(tar, at + 150),
    "a header of zeros": lambda tar, at: tar[:at] + bytes(512) + tar[at + 512 :],
    "cut in a header": lambda tar, at: tar[: at + 100],
    "cut between files": lambda tar, at: tar[:at],
    "a lone block of zeros at the end": lambda tar, at: tar[:at] + bytes(512),
    "cut in a file": lambda tar, at: tar[: at + 700],
}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", [1, 4])
def test_a_damaged_tar_is_refused_for_users_and_for_the_raw_folder(
    tmp_path: Path, damage: str, place: int
) -> None:
    damaged = DAMAGES[damage](WHOLE, headers(WHOLE)[place])
    with pytest.raises(UserError, match=r"archive is damaged.*"):
        read(damaged, tmp_path)
    with pytest.raises(UserError, match="archive is damaged.*make it again with `dvc repro -f"):
        read_tar(tmp_path / "archive")


@pytest.mark.parametrize("form", FORMATS)
def test_whole_tars_are_read_however_long_their_names(tmp_path: Path, form: int) -> None:
    content = CONTENT | {f"a/{'long' * 20}/{'name' * 20}.png": b"x"}
    assert read(tar_of(content, form), tmp_path) == content


def test_more_behind_the_end_of_a_tar_is_not_lost_in_silence(tmp_path: Path) -> None:
    assert read(WHOLE + bytes(100_000), tmp_path) == CONTENT
    with pytest.raises(UserError, match="something follows behind its end; `tar -A` joins"):
        read(WHOLE + tar_of({"c/1.png": b"x"}), tmp_path)


def test_a_tar_that_was_appended_to_is_whole(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(WHOLE)
    with tarfile.open(tmp_path / "archive", "a") as archive:
        archive.addfile(tarfile.TarInfo("c/1.png"))
    whole = (tmp_path / "archive").read_bytes()
    assert read(whole, tmp_path) == CONTENT | {"c/1.png": b""}


def test_the_start_tells_a_tar_that_ends_with_a_zip(tmp_path: Path) -> None:
    inner = zip_of({"x/1.png": b"x", "y/1.png": b"y"})
    content = CONTENT | {"z.zip": inner}
    tar = tar_of(content)
    with zipfile.ZipFile(io.BytesIO(tar)) as archive:  # as it looks from its end
        assert archive.namelist() == ["x/1.png", "y/1.png"]
    assert read(tar, tmp_path) == content


def test_two_zips_in_one_file_are_refused(tmp_path: Path) -> None:
    assert read(zip_of(CONTENT), tmp_path) == CONTENT
    with pytest.raises(UserError, match="does not list the file that it begins with"):
        read(zip_of(CONTENT) + zip_of({"c/1.png": b"x"}), tmp_path)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"Rar!\x1a\x07\x01\x00", "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"PAR1", "a Parquet file"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"", "empty"),
    ],
)
def test_other_kinds_are_called_by_their_names(tmp_path: Path, start: bytes, kind: str) -> None:
    with pytest.raises(UserError, match=f"archive is {kind}: data.source names a folder of im"):
        read(start + bytes(1000) * bool(start), tmp_path)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_source(path: str, tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="is a device or a pipe"),
        opened(Path(path), tmp_path),
    ):
        pass


class OldInfo(zipfile.ZipInfo):
    """A file whose name is these very bytes, as a program without Unicode wrote them."""

    raw: bytes

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802
        return self.raw, self.flag_bits


def named(names: list[bytes], extra: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number, name in enumerate(names):
            info = OldInfo(f"{number}")
            info.raw, info.extra = name, extra
            archive.writestr(info, name)
    return file.getvalue()


@pytest.mark.parametrize(
    ("names", "encoding"),
    [
        (["猫/写真1.png", "犬/一.png"], "cp932"),
        (["ねこ/表.png", "イヌ/ソ.png", "dog/3.png"], "cp932"),
        (["猫/é.png", "dog/ü.png"], "utf-8"),
        (["Äpfel/größe.png", "Öl/ü.png"], "cp437"),
        (["étoile/1.png", "forêt/22.png"], "cp437"),
    ],
)
def test_names_of_old_programs_are_decoded(tmp_path: Path, names: list[str], encoding: str) -> None:
    encoded = [name.encode(encoding) for name in names]
    assert sorted(read(named(encoded), tmp_path)) == sorted(names)


def test_names_in_an_unknown_encoding_keep_their_bytes(tmp_path: Path) -> None:
    encoded = [name.encode("gbk") for name in ("狗/1.png", "猫%/22.png")]
    assert sorted(read(named(encoded), tmp_path)) == ["%B9%B7/1.png", "%C3%A8%25/22.png"]


def test_a_name_that_an_extra_field_tells_is_taken(tmp_path: Path) -> None:
    raw, name = "狗/1.png".encode("gbk"), "狗/1.png".encode()
    body = b"\x01" + struct.pack("<I", zlib.crc32(raw)) + name
    extra = struct.pack("<HH", 0x7075, len(body)) + body
    assert sorted(read(named([raw], extra=extra), tmp_path)) == ["狗/1.png"]


def test_the_tar_of_the_raw_folder_is_read_back(tmp_path: Path) -> None:
    files = [
        File(name, len(data), lambda data=data: io.BytesIO(data)) for name, data in CONTENT.items()
    ]
    write_tar(files, tmp_path / "images.tar", lambda size: None)
    assert [file.name for file in read_tar(tmp_path / "images.tar")] == list(CONTENT)
