from pathlib import Path

import pytest

from helpers.clones import git
from imageclf.project.git import GitError
from imageclf.team import remote_refs as refs

REF = "refs/imageclf/things/1"


def test_files_travel_to_another_clone(clones: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"a.json": b"{}\n", "b.patch": b"\0\r\n\xff"}
    made = refs.commit(files)
    refs.change(REF, "", made)
    monkeypatch.chdir(clones[1])
    assert refs.listed("refs/imageclf/things/*") == {REF: made}
    assert refs.fetch(REF, made) == files
    assert refs.commit(files) == made
    assert git("branch", "--all").count("main") == 3  # its own, the remote's and the remote's HEAD


def test_a_ref_changes_only_from_what_it_was(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = refs.commit({"n": b"1"}), refs.commit({"n": b"2"})
    refs.change(REF, "", first)
    for before in ("", second):
        with pytest.raises(GitError, match="`git push`"):
            refs.change(REF, before, second)
    refs.change(REF, first, second)
    assert refs.listed(REF) == {REF: second}
    refs.change(REF, second, "")
    assert refs.listed(REF) == {}


def test_without_a_remote_it_is_said_what_to_do(clones: list[Path]) -> None:
    git("remote", "remove", "origin")
    with pytest.raises(GitError, match="git has no remote: clone the project"):
        refs.listed(REF)


def test_a_remote_that_is_gone_is_one_line(clones: list[Path]) -> None:
    (clones[0].parent / "origin.git").rename(clones[0].parent / "gone.git")
    with pytest.raises(GitError) as caught:
        refs.listed(REF)
    assert str(caught.value).startswith("`git ls-remote`: fatal: ")
    assert "\n" not in str(caught.value)


def test_ssh_says_why_a_remote_cannot_be_reached(clones: list[Path]) -> None:
    git("remote", "set-url", "origin", "ssh://127.0.0.1:9/nowhere")
    with pytest.raises(GitError, match="port 9: Connection refused"):
        refs.listed(REF)


def test_the_remote_is_the_one_that_the_branch_follows(clones: list[Path]) -> None:
    git("remote", "rename", "origin", "team")
    git("remote", "add", "origin", "nowhere")
    assert refs.remote() == "team"
