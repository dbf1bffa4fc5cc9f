import json
import shutil
from pathlib import Path

import pytest

from helpers.clones import git
from helpers.params import ROOT
from imageclf.files import UserError
from imageclf.project.dvc import dvc
from imageclf.team import remote_refs as refs
from imageclf.team import runner


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
    assert branch
    assert branch.ref == "refs/heads/main"
    assert not branch.has_moved
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
    assert branch
    assert branch.has_moved
    assert not runner._publish(branch, tell)
    assert "type `make runner` again" in lines[0]
    branch = runner._follow_branch()
    assert branch
    assert not branch.has_moved
    assert not Path("dvc.lock").exists()
    Path("dvc.lock").write_text("a: 1\n")
    assert runner._publish(branch, tell)


@pytest.mark.parametrize("reaches_the_remote", [True, False])
def test_a_runner_that_is_killed_while_it_publishes_leaves_nothing_to_mend(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch, reaches_the_remote: bool
) -> None:
    branch = runner._follow_branch()
    Path("dvc.lock").write_text("a: 1\n")

    def die(*arguments: str) -> bytes:
        if arguments[0] == "push":
            if reaches_the_remote:
                refs.git(*arguments)
            raise KeyboardInterrupt
        return refs.git(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner, "git", die)
        runner._publish(branch, print)
    git("commit", "--quiet", "--allow-empty", "--message", "second", at=clones[1])
    git("pull", "--quiet", "--rebase", at=clones[1])
    git("push", "--quiet", at=clones[1])
    branch = runner._follow_branch()
    assert Path("dvc.lock").exists() == reaches_the_remote
    Path("dvc.lock").write_text("a: 1\n")
    assert runner._publish(branch, print)
    assert git("show", "refs/heads/main:dvc.lock", at=clones[0].parent / "origin.git") == "a: 1\n"
    assert git("rev-list", "--count", "origin/main..HEAD") == "0\n"


def test_settings_of_the_user_do_not_get_in_the_way(clones: list[Path]) -> None:
    git("config", "commit.gpgsign", "true")
    hook = Path(git("rev-parse", "--git-path", "hooks/pre-push").strip())
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    branch = runner._follow_branch()
    Path("dvc.lock").write_text("a: 1\n")
    assert runner._publish(branch, print)
    refs.change("refs/imageclf/things/1", "", refs.commit({"n": b"1"}))


def test_a_torn_lock_file_is_given_up(clones: list[Path]) -> None:
    branch = runner._follow_branch()
    Path("dvc.lock").write_text("a: 1\n")
    assert runner._publish(branch, print)
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


def test_a_training_is_known_by_its_code_and_by_data_that_need_not_be_here(project: Path) -> None:
    make = {"cmd": "mkdir data && cp source data/images", "deps": ["source"], "outs": ["data"]}
    train = {"cmd": "true", "params": ["seed"], "deps": ["data", "src/code"]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"make": make, "train": train}}))
    shutil.copy(ROOT / "params.yaml", ".")
    Path("src/code").mkdir(parents=True)
    Path("src/code/module.py").write_text("pass")
    keys = []
    for images in ("1", "2"):
        Path("source").write_text(images)
        assert dvc("init", "--no-scm", "--quiet", "--force").returncode == 0
        assert dvc("repro", "--quiet", "make").returncode == 0
        keys.append(runner.training_key())
    shutil.rmtree("data")
    Path("src/code/__pycache__").mkdir()
    Path("src/code/__pycache__/module.pyc").write_text("no source")
    assert runner.training_key() == keys[1] != keys[0]
    Path("src/code/module.py").write_text("return")
    assert runner.training_key() not in keys
