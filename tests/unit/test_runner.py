from pathlib import Path

import pytest

from clones import git
from imageclf import runner
from imageclf.files import UserError


def said() -> tuple[list[str], "runner.Tell"]:
    lines: list[str] = []
    return lines, lines.append


def test_a_tree_that_differs_from_the_commit_is_refused(clones: list[Path]) -> None:
    Path("params.yaml").write_text("seed: 2\n")
    with pytest.raises(UserError, match="commit or restore params.yaml"):
        runner._follow_branch()


def test_dvc_lock_goes_to_the_branch_and_nothing_else(clones: list[Path]) -> None:
    lines, tell = said()
    branch = runner._follow_branch()
    assert branch == "refs/heads/main"
    Path("dvc.lock").write_text("a: 1\n")
    Path("note.txt").write_text("not for git\n")
    assert runner._publish(branch, tell)
    assert lines == ["dvc.lock is on the branch; elsewhere: git pull && make pull"]
    git("pull", "--quiet", at=clones[1])
    assert (clones[1] / "dvc.lock").read_text() == "a: 1\n"
    assert not (clones[1] / "note.txt").exists()
    lines.clear()
    assert runner._publish(branch, tell)
    assert lines == []


def test_a_branch_that_moved_on_costs_one_more_run(clones: list[Path]) -> None:
    lines, tell = said()
    branch = runner._follow_branch()
    git("commit", "--quiet", "--allow-empty", "--message", "second", at=clones[1])
    git("push", "--quiet", at=clones[1])
    Path("dvc.lock").write_text("a: 1\n")
    assert not runner._publish(branch, tell)
    assert "type `make runner` again" in lines[0]
    assert runner._follow_branch() == branch
    assert not Path("dvc.lock").exists()
    Path("dvc.lock").write_text("a: 1\n")
    assert runner._publish(branch, tell)


def test_a_torn_lock_file_is_given_up(clones: list[Path]) -> None:
    Path("dvc.lock").write_text("a: 1\n")
    assert runner._publish("refs/heads/main", print)
    Path("dvc.lock").write_text("a: [torn")
    runner._follow_branch()
    assert Path("dvc.lock").read_text() == "a: 1\n"


def test_where_there_is_no_branch_nothing_is_committed(clones: list[Path]) -> None:
    git("checkout", "--quiet", "--detach")
    lines, tell = said()
    Path("dvc.lock").write_text("a: 1\n")
    assert runner._follow_branch() is None
    assert runner._publish(None, tell)
    assert lines == ["dvc.lock is not committed: HEAD follows no branch of git's remote"]
    assert Path("dvc.lock").read_text() == "a: 1\n"


def test_one_runner_works_in_a_folder(clones: list[Path]) -> None:
    with runner._alone(), pytest.raises(UserError, match="works in this folder already"):
        runner._alone().__enter__()
