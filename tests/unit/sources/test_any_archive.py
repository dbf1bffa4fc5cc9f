"""Whatever an archive holds: images, or one line that refuses it."""

import io
import os
import resource
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from helpers.images import photograph
from imageclf.files import UserError
from imageclf.sources.image_folder import fetch_images

RAW = Path("data/raw")
MEMORY = 1 << 29  # bytes beyond what the tests take
PICTURES = []
for number in range(3):
    file = io.BytesIO()
    photograph(number, 8, 6).save(file, "PNG")
    PICTURES.append(file.getvalue())
NAMES = [f"{folder}{name}/{i}.png" for folder in ("", "train/") for name in "ab" for i in range(3)]
TAR_KINDS = [
    *(tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE),
    *(tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE),
]
odd_names = st.one_of(
    st.sampled_from(
        [*NAMES, "../e.png", "/e.png", "a/../../e.png", "..\\e.png", "a", "a/", "", "."]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with little memory."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_AS, limits)


def tar_of(
    members: list[tuple[str, bytes]], mode: str = "w", form: int = tarfile.PAX_FORMAT
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for number, (name, kind) in enumerate(members):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            data = PICTURES[number % 3] if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zip_of(names: list[str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        usable = dict.fromkeys(name.partition("\0")[0] for name in names)
        for number, name in enumerate(filter(None, usable)):
            archive.writestr(name, PICTURES[number % 3])
    return file.getvalue()


REGULAR = [(name, tarfile.REGTYPE) for name in NAMES[:6]]
LONG = [(f"{'long/' * 30}{name}", tarfile.REGTYPE) for name in NAMES[:6]]
WHOLE = [
    *(tar_of(REGULAR, mode) for mode in ("w", "w:gz", "w:bz2", "w:xz")),
    *(tar_of(LONG, form=form) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)),
    *(zip_of(NAMES[:6], form) for form in (0, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)),
    zip_of(NAMES[6:], zipfile.ZIP_LZMA),
    zip_of(["ねこ/一.png", "é/2.png"]),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A whole archive with some of its bytes changed, left out, doubled or cut off."""
    data = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 600))
        other = draw(st.integers(0, len(data)))
        change = draw(st.sampled_from(["set", "cut", "copy", "insert", "drop"]))
        if change == "set":
            value = draw(st.binary(min_size=1, max_size=12))
            data[place : place + len(value)] = value
        elif change == "cut":
            del data[place:]
        elif change == "copy":
            data[place : place + length] = data[other : other + length]
        elif change == "insert":
            data[place:place] = data[other : other + length]
        else:
            del data[place : place + length]
    return bytes(data)


def outside(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "project" not in path.relative_to(folder).parts}


def check(data: bytes, folder: Path) -> None:
    """Fetch the images of an archive of these bytes, or see it refused."""
    source = folder / "archive"
    source.write_bytes(data)
    before = outside(folder)
    try:
        collected = fetch_images(str(source), RAW, Console(file=io.StringIO()))
    except UserError:
        assert not list(Path().rglob("*.tar"))
    else:
        assert len(collected.class_names) >= 2
        assert {path.name for path in RAW.iterdir()} == {"images.tar", "source.json"}
        shutil.rmtree(RAW)
    assert outside(folder) == before
    assert not Path("/e.png").exists()


SETTINGS = settings(
    max_examples=4000,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.slow
@given(data=mutated())
@SETTINGS
def test_mutated_archives_are_read_or_refused(data: bytes, project: Path) -> None:
    check(data, project)


@pytest.mark.slow
@given(members=st.lists(st.tuples(odd_names, st.sampled_from(TAR_KINDS)), max_size=12))
@SETTINGS
def test_tars_of_odd_members_are_read_or_refused(
    members: list[tuple[str, bytes]], project: Path
) -> None:
    check(tar_of([*REGULAR, *members]), project)


@pytest.mark.slow
@given(names=st.lists(odd_names, max_size=12))
@SETTINGS
def test_zips_of_odd_names_are_read_or_refused(names: list[str], project: Path) -> None:
    check(zip_of([*NAMES[:6], *names]), project)


@pytest.mark.parametrize("data", WHOLE[:4] + WHOLE[6:9], ids=len)
def test_the_archives_are_whole_before_they_are_mutated(data: bytes, project: Path) -> None:
    (project / "archive").write_bytes(data)
    fetch_images(str(project / "archive"), RAW, Console(file=io.StringIO()))
