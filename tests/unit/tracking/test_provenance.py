import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imageclf.project.git import Commit
from imageclf.tracking import provenance as origin
from imageclf.tracking.provenance import Provenance, record_source, this_machine

PATCH = Path("kept/changes.patch")


def git(*arguments: str, at: Path | None = None) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=at
    ).stdout.strip()


@pytest.fixture
def commit(project: Path) -> str:
    """A commit of two files, of which git ignores what the patch is kept in."""
    Path("tracked.py").write_text("1\n")
    Path("gone.py").write_text("1\n")
    Path(".gitignore").write_text("/kept/\n/mlflow.db\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    return git("rev-parse", "HEAD")


def test_outside_of_git_nothing_is_told(project: Path) -> None:
    assert record_source(PATCH) == Provenance()
    git("init", "--quiet")
    assert record_source(PATCH) == Provenance()
    assert not PATCH.exists()


def test_without_the_program_git_nothing_is_told(
    commit: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(project))
    assert record_source(PATCH) == Provenance()


def test_a_clean_tree_has_no_patch(commit: str) -> None:
    PATCH.parent.mkdir()
    PATCH.write_text("of an earlier training")
    Path("dvc.lock").write_text("a result, not a source\n")
    assert record_source(PATCH) == Provenance(Commit(commit), dirty=False)
    assert not PATCH.exists()


def test_the_commit_with_the_patch_is_the_source(commit: str, tmp_path: Path) -> None:
    Path("tracked.py").write_text("2\n")
    Path("staged.py").write_text("3\n")
    git("add", "staged.py")
    Path("gone.py").unlink()
    Path("new folder").mkdir()
    Path("new folder/ünï *.bin").write_bytes(bytes(range(256)))
    Path("empty").touch()
    Path("link").symlink_to("tracked.py")
    Path("program").write_text("#!/bin/sh\n")
    Path("program").chmod(0o755)
    before = git("status", "--porcelain")
    git("config", "diff.noprefix", "true")
    git("config", "color.ui", "always")
    assert record_source(PATCH) == Provenance(Commit(commit), dirty=True)
    assert git("-c", "color.ui=never", "status", "--porcelain") == before

    copy = tmp_path / "copy"
    git("clone", "--quiet", ".", str(copy))
    git("apply", str(PATCH.absolute()), at=copy)
    for name in ("tracked.py", "staged.py", "new folder/ünï *.bin", "empty"):
        assert (copy / name).read_bytes() == Path(name).read_bytes()
    assert not (copy / "gone.py").exists()
    assert (copy / "link").readlink() == Path("tracked.py")
    assert os.access(copy / "program", os.X_OK)


def test_a_change_in_the_second_of_the_commit_is_seen(commit: str) -> None:
    git("config", "core.trustctime", "false")  # as no test can set that time
    second = 1_000_000_000
    os.utime("tracked.py", (second, second))
    git("add", "tracked.py")
    Path("tracked.py").write_text("2\n")
    for path in ("tracked.py", ".git/index"):
        os.utime(path, (second, second))
    assert record_source(PATCH).dirty is True
    assert "+2" in PATCH.read_text()


def test_a_heap_of_unknown_files_stays_out(commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "MOST_UNTRACKED", 100)
    Path("recipe.yaml").write_text("seed: 2\n")
    Path("images.bin").write_bytes(bytes(200))
    record_source(PATCH)
    text = PATCH.read_text()
    assert text.startswith("left out, too large: images.bin\ndiff --git a/recipe.yaml")
    assert "b/images.bin" not in text
    git("stash", "--include-untracked", "--quiet")
    git("apply", str(PATCH))
    assert Path("recipe.yaml").exists()


def test_in_a_folder_of_a_larger_repository_only_the_folder_counts(
    commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("tracked.py").write_text("2\n")
    Path("within").mkdir()
    monkeypatch.chdir("within")
    assert record_source(Path("../kept/changes.patch")).dirty is False
    Path("new.py").write_text("1\n")
    assert record_source(Path("../kept/changes.patch")).dirty is True
    assert "b/within/new.py" in Path("../kept/changes.patch").read_text()


def test_the_machine_is_named() -> None:
    tags = this_machine(torch.device("cpu")).tags()
    assert tags["device"] == "cpu"
    assert tags["hardware"]
    assert tags["version.torch"] == torch.__version__.partition("+")[0]


TAGS = {
    "device": "cuda:0",
    "hardware": "NVIDIA H100",
    "processes": "2",
    "git_commit": "a" * 40,
    "git_dirty": "true",
    "version.torch": "2.14.1",
    "version.python": "3.11.7",
}


def test_tags_of_earlier_versions_are_read_and_written_as_they_were() -> None:
    read = Provenance.from_tags(TAGS | {"fingerprint": "f" * 64})
    assert (read.commit, read.dirty, read.processes) == ("a" * 40, True, 2)
    assert read.versions == {"torch": "2.14.1", "python": "3.11.7"}
    assert read.tags() == TAGS
    assert Provenance.from_tags({}).tags() == {}
    assert read.machine == {tag: TAGS[tag] for tag in TAGS if tag not in {*SOURCE, "processes"}}


SOURCE = ("git_commit", "git_dirty")


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("git_commit", "--output=FILE"),
        ("git_commit", "HEAD"),
        ("git_commit", "a" * 39),
        ("git_commit", "a" * 41),
        ("git_commit", "A" * 40),
        ("git_commit", "a" * 40 + "\n"),
        ("git_commit", ""),
        ("git_dirty", "True"),
        ("git_dirty", ""),
        ("processes", "-1"),
        ("processes", "9" * 5000),
        ("processes", "\u0663"),
    ],
)
def test_what_does_not_parse_is_refused_and_never_written_again(tag: str, value: str) -> None:
    read = Provenance.from_tags(TAGS | {tag: value})
    assert read.refused == {tag: value}
    assert read.tags() == {other: TAGS[other] for other in TAGS if other != tag}
    assert Provenance.from_tags(TAGS).updated(read) == replace(
        Provenance.from_tags(TAGS), refused={tag: value}
    )


def test_a_commit_of_sha256_is_one_too() -> None:
    assert Provenance.from_tags({"git_commit": "b" * 64}).commit == "b" * 64
