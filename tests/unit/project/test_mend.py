"""What a killed `dvc` leaves is mended, and nothing is touched while one is at work."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from dvc.schema import COMPILED_LOCKFILE_SCHEMA

from helpers.clones import git
from helpers.params import ROOT
from imageclf.cli import main
from imageclf.files import UserError, parse_yaml, read_yaml
from imageclf.project.dvc import DVC, dvc
from imageclf.project.lock import locked_stages
from imageclf.project.mend import LEFT, is_torn_lock, mend
from imageclf.project.processes import RWLOCK

LOCK = Path("dvc.lock")
STAGES = {
    "first": {"cmd": "cat source > one", "deps": ["source"], "outs": ["one"]},
    "second": {
        "cmd": "cat one > two",
        "deps": ["one"],
        "outs": ["two"],
        "params": ["rate", "name"],
    },
    "third": {"cmd": "cat two > three", "deps": ["two"], "outs": ["three"], "params": ["name"]},
}
# A stage that says that it runs, and ends when it is told to.
WAIT = "touch runs; while [ ! -e end ]; do sleep 0.1; done"
WAITING = {"wait": {"cmd": WAIT, "deps": ["source"]}}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project whose stages have run."""
    folder = tmp_path_factory.mktemp("template")
    git("init", "--quiet", at=folder)
    (folder / "dvc.yaml").write_text(json.dumps({"stages": STAGES}))
    (folder / "params.yaml").write_text("rate: 0.1\nname:\n")
    (folder / "source").write_text("1")
    for command in (["init", "--quiet"], ["repro", "--quiet"]):
        done = dvc(*command, at=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def finished(template: Path, project: Path) -> Path:
    """A copy of it, the current folder."""
    shutil.copytree(template, project, dirs_exist_ok=True)
    return project


def repro() -> "subprocess.CompletedProcess[str]":
    return dvc("repro")


@pytest.mark.parametrize("left", ["", "{", '{"write": {"/project/one": {"pid": 1'])
def test_a_torn_rwlock(finished: Path, left: str) -> None:
    RWLOCK.write_text(left)
    assert "rwlock" in repro().stderr
    assert mend() == [f"removed .dvc/tmp/rwlock, {LEFT}"]
    assert repro().returncode == 0
    assert mend() == []


def test_an_rwlock_of_a_killed_process_whose_number_another_one_has(finished: Path) -> None:
    holder = {"pid": os.getppid(), "cmd": "dvc repro"}
    RWLOCK.write_text(json.dumps({"write": {str(finished / "one"): holder}}))
    Path("source").write_text("2")
    assert "busy" in repro().stderr
    assert len(mend()) == 1
    assert repro().returncode == 0


@pytest.mark.parametrize("content", [b"", b"\0" * 100])
def test_an_empty_lock(finished: Path, content: bytes) -> None:
    before = LOCK.read_text()
    LOCK.write_bytes(content)
    assert repro().returncode != 0
    (told,) = mend()
    assert "it has 0 stages of its own and 0 of the last commit" in told
    assert "Running stage" not in repro().stdout
    assert LOCK.read_text() == before


@pytest.mark.slow
def test_a_lock_cut_anywhere_keeps_its_whole_stages(finished: Path) -> None:
    whole = LOCK.read_text()
    assert not is_torn_lock(whole.encode())
    headings = [f"  {name}:\n" for name in STAGES]
    for length in range(len(whole)):
        LOCK.write_text(whole[:length])
        mend()
        if LOCK.exists():
            COMPILED_LOCKFILE_SCHEMA(read_yaml(LOCK))
        kept = locked_stages(LOCK.read_text()) if LOCK.exists() else {}
        assert len(kept) >= sum(heading in whole[:length] for heading in headings[1:])
        assert all(found == locked_stages(whole)[name] for name, found in [*kept.items()][:-1])


def test_the_last_commit_has_the_other_stages(finished: Path) -> None:
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    Path("params.yaml").write_text("rate: 0.2\nname:\n")
    repro()
    whole = LOCK.read_text()
    LOCK.write_text(whole[: whole.index("  third:") + 20])
    (told,) = mend()
    assert "it has 2 stages of its own and 1 of the last commit" in told
    assert read_yaml(LOCK) == parse_yaml(whole, "")


def test_a_lock_that_is_damaged_otherwise_stays(finished: Path) -> None:
    conflict = "<<<<<<< HEAD\n" + LOCK.read_text() + "  fourth:\n"
    LOCK.write_text(conflict)
    with pytest.raises(UserError, match=r"dvc\.lock is not valid YAML|dvc\.lock is torn"):
        mend()
    assert LOCK.read_text() == conflict


def test_nothing_is_touched_while_dvc_is_at_work(finished: Path) -> None:
    Path("dvc.yaml").write_text(json.dumps({"stages": STAGES | WAITING}))
    torn = LOCK.read_text()[:-1]
    process = subprocess.Popen([*DVC, "repro", "--quiet", "wait"])
    try:
        while not Path("runs").exists():
            assert process.poll() is None
            time.sleep(0.05)
        LOCK.write_text(torn)
        with pytest.raises(UserError, match="a `dvc` command is at work here"):
            mend()
        assert LOCK.read_text() == torn
    finally:
        Path("end").touch()
        process.wait()
    LOCK.write_text(torn)
    assert len(mend()) == 1


@pytest.mark.parametrize("command", ["mend", "use", "runs"])
def test_every_command_mends(finished: Path, command: str) -> None:
    RWLOCK.write_text("")
    result = CliRunner().invoke(main, [command])
    assert f"removed .dvc/tmp/rwlock, {LEFT}\n" in result.output
    assert CliRunner().invoke(main, ["mend"]).output.startswith("there is nothing to mend\n")


def test_what_stops_a_reproduction_is_named_by_what_make_run_asks_first(finished: Path) -> None:
    """DVC would name the parameter too, in words of its own, and only as it comes to the stage."""
    result = CliRunner().invoke(main, ["mend"])
    assert result.exit_code == 2
    assert (
        "error: params.yaml: seed is missing: add it as in the params.yaml of this" in result.output
    )
    shutil.copy(ROOT / "params.yaml", ".")
    assert CliRunner().invoke(main, ["mend"]).exit_code == 0
    shutil.rmtree(".git")
    result = CliRunner().invoke(main, ["mend"])
    assert result.exit_code == 2
    assert "error: the project is in no git repository, as after the download" in result.output
