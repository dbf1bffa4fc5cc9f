import hashlib
import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from helpers.files import flip
from imageclf.files import write_text
from imageclf.project.dvc import dvc
from imageclf.project.integrity import check, copies_of, recorded_file
from imageclf.project.lock import Out, recorded_outs

CACHE = Path(".dvc/cache")


@pytest.fixture
def outs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Out]:
    """What a stage made in the current folder, a DVC project: a file and a folder."""
    monkeypatch.chdir(tmp_path)
    command = (
        "mkdir -p folder/below && echo one > file && echo two > folder/below/a && cp file folder"
    )
    stage = {"cmd": command, "outs": ["file", "folder"]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"make": stage}}))
    for arguments in (("init", "--no-scm", "--quiet"), ("repro", "--quiet")):
        assert dvc(*arguments).returncode == 0
    return {out.path: out for out in recorded_outs(Path("dvc.lock").read_text())}


def found(out: Out, workspace: Path | None = Path()) -> tuple[list[tuple[str, bool]], list[str]]:
    """The name of each wrong copy and whether it is cached, and the names of what is missing."""
    wrong, missing = check(copies_of(out, CACHE, workspace))
    return [(copy.name, copy.is_cached) for copy in wrong], [copy.name for copy in missing]


def cached(md5: str) -> Path:
    return CACHE / "files/md5" / md5[:2] / md5[2:]


def test_what_dvc_made_is_as_recorded(outs: dict[str, Out]) -> None:
    for out in outs.values():
        assert found(out) == found(out, None) == ([], [])


def test_a_terminal_shows_the_progress(outs: dict[str, Out]) -> None:
    terminal = Console(file=StringIO(), force_terminal=True, width=100)
    check(copies_of(outs["folder"], CACHE, Path()), terminal)
    size = 2 * (4 + 4) + cached(outs["folder"].md5).stat().st_size
    assert (
        f"5 files {24 * '━'} {size}/{size} bytes" in Text.from_ansi(terminal.file.getvalue()).plain
    )


@pytest.mark.parametrize("workspace", [Path(), None], ids=["workspace", "cache alone"])
def test_a_flipped_byte_in_the_cache_is_found(outs: dict[str, Out], workspace: Path | None) -> None:
    two = next(copy for copy in copies_of(outs["folder"], CACHE, None) if copy.name.endswith("a"))
    flip(two.path)
    assert found(outs["folder"], workspace) == ([("folder/below/a", True)], [])
    flip(cached(outs["file"].md5))
    assert found(outs["file"], workspace) == ([("file", True)], [])
    assert ("folder/file", True) in found(outs["folder"], workspace)[0]  # the same object


def test_a_flipped_byte_in_the_workspace_is_found(outs: dict[str, Out]) -> None:
    flip(Path("folder/below/a"))
    flip(Path("file"))
    assert found(outs["folder"]) == ([("folder/below/a", False)], [])
    assert found(outs["file"]) == ([("file", False)], [])


def test_a_damaged_listing_is_found_and_the_folder_is_checked_as_a_whole(
    outs: dict[str, Out],
) -> None:
    flip(cached(outs["folder"].md5))
    assert found(outs["folder"]) == ([("folder", True)], [])
    flip(Path("folder/below/a"))
    assert found(outs["folder"]) == ([("folder", True), ("folder", False)], [])


@pytest.mark.parametrize(
    "listing",
    [
        '[{"md5": "../../etc/passwd", "relpath": "a"}]',
        f'[{{"md5": "{32 * "1"}", "relpath": "../../precious"}}]',
        "[1",
    ],
)
def test_a_listing_that_names_something_else_is_not_read(listing: str, tmp_path: Path) -> None:
    """As the cache of another person may hold it: `verify` prints what to delete."""
    md5 = hashlib.md5(listing.encode()).hexdigest()
    place = tmp_path / "files/md5" / md5[:2] / f"{md5[2:]}.dir"
    write_text(place, listing)
    copies = copies_of(Out("folder", "make", f"{md5}.dir"), tmp_path, tmp_path)
    assert {copy.path for copy in copies} == {place, tmp_path / "folder"}


def test_one_copy_is_enough_and_none_is_too_few(outs: dict[str, Out]) -> None:
    Path("file").unlink()
    Path("folder/below/a").unlink()
    assert found(outs["file"]) == found(outs["folder"]) == ([], [])
    for copy in copies_of(outs["folder"], CACHE, None):
        if copy.name == "folder/below/a":
            copy.path.unlink()
    cached(outs["file"].md5).unlink()
    assert found(outs["file"]) == ([], ["file"])
    assert found(outs["folder"])[1] == ["folder/below/a"]
    cached(outs["folder"].md5).unlink()
    assert found(outs["folder"], None) == ([], ["folder"])


def test_a_file_that_is_not_recorded_is_found(outs: dict[str, Out]) -> None:
    Path("folder/below/b").touch()
    assert found(outs["folder"]) == ([("folder/below/b", False)], [])


def test_a_file_is_had_from_the_cache_or_else_from_the_workspace(outs: dict[str, Out]) -> None:
    for name in ("file", "folder/below/a"):
        (cached_copy,) = (
            copy.path
            for out in outs.values()
            for copy in copies_of(out, CACHE, None)
            if copy.name == name
        )
        assert recorded_file(Path(name), outs.values(), CACHE) == cached_copy
        flip(cached_copy)
        assert recorded_file(Path(name), outs.values(), CACHE) == Path(name)
        Path(name).chmod(0o644)
        Path(name).write_text("changed\n")
        assert recorded_file(Path(name), outs.values(), CACHE) is None
    assert recorded_file(Path("folder/none"), outs.values(), CACHE) is None
    assert recorded_file(Path("elsewhere"), outs.values(), CACHE) is None
