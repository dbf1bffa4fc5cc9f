import json
import os
import subprocess
from pathlib import Path

import pytest

from imageclf.project.git import Commit
from imageclf.tracking import patch
from imageclf.tracking.patch import record_source, split_patch
from imageclf.tracking.provenance import Provenance

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
    assert record_source(PATCH) == Provenance(Commit(commit), dirty=False, patch_complete=True)
    assert not PATCH.exists()


def test_the_commit_with_the_patch_is_the_source(commit: str, tmp_path: Path) -> None:
    Path("tracked.py").write_text("2\n")
    Path("staged.py").write_text("3\n")
    git("add", "staged.py")
    Path("gone.py").unlink()
    Path("src/new folder").mkdir(parents=True)
    Path("src/new folder/ünï *.bin").write_bytes(bytes(range(256)))
    Path("src/empty").touch()
    Path("src/link").symlink_to("../tracked.py")
    Path("src/program").write_text("#!/bin/sh\n")
    Path("src/program").chmod(0o755)
    before = git("status", "--porcelain")
    git("config", "diff.noprefix", "true")
    git("config", "color.ui", "always")
    assert record_source(PATCH) == Provenance(Commit(commit), dirty=True, patch_complete=True)
    assert git("-c", "color.ui=never", "status", "--porcelain") == before

    copy = tmp_path / "copy"
    git("clone", "--quiet", ".", str(copy))
    git("apply", str(PATCH.absolute()), at=copy)
    for name in ("tracked.py", "staged.py", "src/new folder/ünï *.bin", "src/empty"):
        assert (copy / name).read_bytes() == Path(name).read_bytes()
    assert not (copy / "gone.py").exists()
    assert (copy / "src/link").readlink() == Path("../tracked.py")
    assert os.access(copy / "src/program", os.X_OK)


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


@pytest.fixture
def stages(commit: str) -> None:
    """A pipeline whose stages read ``extra.json`` and ``more``."""
    deps = ["extra.json", "more", "src/a.py", "/etc/passwd", "../outside"]
    Path("dvc.yaml").write_text(json.dumps({"stages": {"one": {"cmd": "true", "deps": deps}}}))
    git("add", "dvc.yaml")
    git("commit", "--quiet", "--message", "stages")


def test_of_unknown_files_those_that_stages_read_are_taken(
    stages: None, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = ["extra.json", "more/x.txt", "recipes/mine.yaml", "src/a.py", "stages/new.py"]
    for name in (*taken, "notes.txt", "secrets/id_rsa", ".netrc", "data/x.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("1\n")
    assert record_source(PATCH).patch_complete is True
    assert capsys.readouterr().err == f"changes.patch: {', '.join(taken)}\n"
    assert PATCH.read_text().count("diff --git") == len(taken)


def test_what_is_too_large_stays_out_and_is_named(
    commit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patch, "MOST_BYTES", 200)
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("seed: 2\n")
    Path("recipes/images.bin").write_bytes(bytes(300))
    Path("tracked.py").write_text("2\n" * 200)
    assert record_source(PATCH).patch_complete is False
    names = ["recipes/images.bin (too large)", "tracked.py (too large)"]
    assert capsys.readouterr().err.splitlines() == [
        "changes.patch: recipes/mine.yaml",
        *(f"left out: {name}" for name in names),
    ]
    left_out, taken = split_patch(PATCH.read_bytes())
    assert left_out == names
    assert taken.startswith(b"diff --git a/recipes/mine.yaml")
    assert b"images.bin" not in taken
    git("stash", "--include-untracked", "--quiet")
    git("apply", str(PATCH))
    assert Path("recipes/mine.yaml").exists()


TOKEN = "ghp_" + "0123456789abcdefABCDEF0123456789abcd"


def test_what_looks_like_a_secret_stays_out_and_the_run_is_marked(
    commit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".dvc").mkdir()
    remote = "['remote \"store\"']\n    url = ssh://host/store\n    password = {}\n"
    Path(".dvc/config").write_text(remote.format("old-hunter1"))
    git("add", ".dvc/config")
    git("commit", "--quiet", "--message", "remote")
    Path(".dvc/config").write_text(remote.format("hunter2x"))
    Path("tracked.py").write_text(f"1\ntoken = '{TOKEN}'\n")
    Path("gone.py").write_text("2\n")
    Path("src").mkdir()
    Path("src/server.pem").write_text("1\n")
    Path(".gitattributes").write_text("*.yaml binary\n")
    Path("params.yaml").write_text("seed: 1  # password: hunter3x\n")
    origin = record_source(PATCH)
    assert (origin.dirty, origin.patch_complete) == (True, False)
    assert origin.tags()["git_patch_complete"] == "false"
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "changes.patch: gone.py",
        "left out: .dvc/config (it looks like a secret: Secret Keyword)",
        "left out: params.yaml (it looks like a secret: Secret Keyword)",
        "left out: src/server.pem (it looks like a secret: a file of keys or passwords)",
        f"left out: tracked.py (it looks like a secret: {'GitHub Token'})",
    ]
    for text in (said, PATCH.read_text()):
        assert not any(word in text for word in ("hunter", "ghp_"))
    _, taken = split_patch(PATCH.read_bytes())
    assert taken.count(b"diff --git") == 1


def test_where_nothing_but_secrets_differs_there_is_a_patch_that_says_so(commit: str) -> None:
    Path("tracked.py").write_text(f"token = '{TOKEN}'\n")
    origin = record_source(PATCH)
    assert (origin.dirty, origin.patch_complete) == (True, False)
    assert split_patch(PATCH.read_bytes())[1] == b""


def test_patches_of_earlier_versions_are_split_too() -> None:
    left_out, taken = split_patch(b"left out, too large: a.bin\ndiff --git a/x b/x\n")
    assert left_out == ["left out, too large: a.bin"]
    assert taken == b"diff --git a/x b/x\n"


def test_in_a_folder_of_a_larger_repository_only_the_folder_counts(
    commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("tracked.py").write_text("2\n")
    Path("within/src").mkdir(parents=True)
    monkeypatch.chdir("within")
    assert record_source(Path("../kept/changes.patch")).dirty is False
    Path("src/new.py").write_text("1\n")
    Path("src/other.py").write_text(f"token = '{TOKEN}'\n")
    assert record_source(Path("../kept/changes.patch")).dirty is True
    text = Path("../kept/changes.patch").read_text()
    assert "b/within/src/new.py" in text
    assert "ghp_" not in text
