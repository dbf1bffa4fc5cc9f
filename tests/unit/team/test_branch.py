from pathlib import Path

import pytest

from helpers.clones import git
from imageclf.files import UserError
from imageclf.team import remote_refs as refs
from imageclf.team.branch import follow_branch, publish_lock
from imageclf.team.sharing import Tell


def said() -> tuple[list[str], Tell]:
    lines: list[str] = []
    return lines, lines.append


def test_a_tree_that_differs_from_the_commit_is_refused(clones: list[Path]) -> None:
    Path("params.yaml").write_text("seed: 2\n")
    with pytest.raises(UserError, match="commit or restore params.yaml"):
        follow_branch()


def test_dvc_lock_goes_to_the_branch_and_nothing_else(clones: list[Path]) -> None:
    lines, tell = said()
    branch = follow_branch()
    assert branch
    assert branch.ref == "refs/heads/main"
    assert not branch.has_moved
    Path("dvc.lock").write_text("a: 1\n")
    Path("note.txt").write_text("not for git\n")
    assert publish_lock(branch, tell)
    assert lines == ["dvc.lock is on the branch; elsewhere: git pull && make pull"]
    git("pull", "--quiet", at=clones[1])
    assert (clones[1] / "dvc.lock").read_text() == "a: 1\n"
    assert not (clones[1] / "note.txt").exists()
    lines.clear()
    assert publish_lock(branch, tell)
    assert lines == []


def test_a_branch_that_moved_on_costs_one_more_run(clones: list[Path]) -> None:
    lines, tell = said()
    branch = follow_branch()
    git("commit", "--quiet", "--allow-empty", "--message", "second", at=clones[1])
    git("push", "--quiet", at=clones[1])
    Path("dvc.lock").write_text("a: 1\n")
    assert branch
    assert branch.has_moved
    assert not publish_lock(branch, tell)
    assert "type `make runner` again" in lines[0]
    branch = follow_branch()
    assert branch
    assert not branch.has_moved
    assert not Path("dvc.lock").exists()
    Path("dvc.lock").write_text("a: 1\n")
    assert publish_lock(branch, tell)


@pytest.mark.parametrize("reaches_the_remote", [True, False])
def test_a_runner_that_is_killed_while_it_publishes_leaves_nothing_to_mend(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch, reaches_the_remote: bool
) -> None:
    branch = follow_branch()
    Path("dvc.lock").write_text("a: 1\n")

    def die(*arguments: str) -> bytes:
        if arguments[0] == "push":
            if reaches_the_remote:
                refs.git(*arguments)
            raise KeyboardInterrupt
        return refs.git(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("imageclf.team.branch.git", die)
        publish_lock(branch, print)
    git("commit", "--quiet", "--allow-empty", "--message", "second", at=clones[1])
    git("pull", "--quiet", "--rebase", at=clones[1])
    git("push", "--quiet", at=clones[1])
    branch = follow_branch()
    assert Path("dvc.lock").exists() == reaches_the_remote
    Path("dvc.lock").write_text("a: 1\n")
    assert publish_lock(branch, print)
    assert git("show", "refs/heads/main:dvc.lock", at=clones[0].parent / "origin.git") == "a: 1\n"
    assert git("rev-list", "--count", "origin/main..HEAD") == "0\n"


def test_settings_of_the_user_do_not_get_in_the_way(clones: list[Path]) -> None:
    git("config", "commit.gpgsign", "true")
    hook = Path(git("rev-parse", "--git-path", "hooks/pre-push").strip())
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    branch = follow_branch()
    Path("dvc.lock").write_text("a: 1\n")
    assert publish_lock(branch, print)
    refs.change("refs/imageclf/things/1", "", refs.commit({"n": b"1"}))


def test_a_torn_lock_file_is_given_up(clones: list[Path]) -> None:
    branch = follow_branch()
    Path("dvc.lock").write_text("a: 1\n")
    assert publish_lock(branch, print)
    Path("dvc.lock").write_text("a: [torn")
    follow_branch()
    assert Path("dvc.lock").read_text() == "a: 1\n"


def test_where_there_is_no_branch_nothing_is_committed(clones: list[Path]) -> None:
    git("checkout", "--quiet", "--detach")
    lines, tell = said()
    Path("dvc.lock").write_text("a: 1\n")
    assert follow_branch() is None
    assert publish_lock(None, tell)
    assert lines == ["dvc.lock is not committed: HEAD follows no branch of git's remote"]
    assert Path("dvc.lock").read_text() == "a: 1\n"
