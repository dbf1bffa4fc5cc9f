import os
import subprocess
from pathlib import Path

import pytest
import torch

from imageclf.tracking import provenance as origin
from imageclf.tracking.provenance import machine_tags, record_source

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
    assert record_source(PATCH) == {}
    git("init", "--quiet")
    assert record_source(PATCH) == {}
    assert not PATCH.exists()


def test_without_the_program_git_nothing_is_told(
    commit: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(project))
    assert record_source(PATCH) == {}


def test_a_clean_tree_has_no_patch(commit: str) -> None:
    PATCH.parent.mkdir()
    PATCH.write_text("of an earlier training")
    Path("dvc.lock").write_text("a result, not a source\n")
    assert record_source(PATCH) == {"git_commit": commit, "git_dirty": "false"}
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
    assert record_source(PATCH) == {"git_commit": commit, "git_dirty": "true"}
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
    assert record_source(PATCH)["git_dirty"] == "true"
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
    assert record_source(Path("../kept/changes.patch"))["git_dirty"] == "false"
    Path("new.py").write_text("1\n")
    assert record_source(Path("../kept/changes.patch"))["git_dirty"] == "true"
    assert "b/within/new.py" in Path("../kept/changes.patch").read_text()


def test_the_machine_is_named() -> None:
    tags = machine_tags(torch.device("cpu"))
    assert tags["device"] == "cpu"
    assert tags["hardware"]
    assert tags["version.torch"] == torch.__version__.partition("+")[0]
