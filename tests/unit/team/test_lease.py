import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from imageclf.project.git import GitError
from imageclf.team import remote_refs as refs
from imageclf.team.lease import LEASES, Lease, LeaseLostError

NAME = "a" * 64
# What another process does in its clone.
WAIT = """
import sys
from imageclf.team.lease import Lease
with Lease(sys.argv[1], 1.5, print):
    print('taken')
"""
LONG_S = 600.0  # nobody waits as long here


def leases() -> dict[str, str]:
    return refs.listed(f"{LEASES}/*")


def no_words(line: str) -> None:
    raise AssertionError(line)


def test_it_is_there_while_it_is_held_and_leaves_nothing(clones: list[Path]) -> None:
    with Lease(NAME, LONG_S, no_words) as lease:
        (first,) = leases().values()
        lease.beat()
        (second,) = leases().values()
        assert first != second
    assert leases() == {}
    with pytest.raises(RuntimeError, match="in the block"), Lease(NAME, LONG_S, no_words):
        raise RuntimeError("in the block")
    assert leases() == {}


def test_another_clone_waits_until_it_is_free(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, told = Lease(NAME, 2, no_words).__enter__(), []
    monkeypatch.chdir(clones[1])
    order = []

    def release(line: str) -> None:
        told.append(line)
        threading.Timer(
            0.5, lambda: (order.append("released"), held.__exit__(None, None, None))
        ).start()

    with Lease(NAME, 2, release):
        order.append("taken")
    assert order == ["released", "taken"]
    assert told == [told[0]]
    assert "trains this model: waiting until it is done, or gives no sign for 2 s" in told[0]


def test_a_silent_holder_loses_it(clones: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    held, told = Lease(NAME, 1, no_words).__enter__(), []
    monkeypatch.chdir(clones[1])
    started = time.monotonic()
    with Lease(NAME, LONG_S, told.append):
        assert time.monotonic() - started >= 1
        assert len(told) == 1
        monkeypatch.chdir(clones[0])
        with pytest.raises(LeaseLostError, match="another runner has taken over"):
            held.beat()
        held.__exit__(LeaseLostError, LeaseLostError("it is lost"), None)
        assert len(leases()) == 1
        monkeypatch.chdir(clones[1])
    assert leases() == {}


def test_who_lives_keeps_it(clones: list[Path], tmp_path: Path) -> None:
    told, waits_since = tmp_path / "told", 0.0
    command = [sys.executable, "-u", "-c", WAIT, NAME]
    with told.open("w") as output:
        with Lease(NAME, 1.5, no_words) as lease:
            other = subprocess.Popen(command, cwd=clones[1], stdout=output)
            while not waits_since or time.monotonic() < waits_since + 4:
                lease.beat()
                assert other.poll() is None
                time.sleep(lease.pause / 2)
                if not waits_since and told.read_text():
                    waits_since = time.monotonic()
        assert other.wait(60) == 0
    *waiting, last = told.read_text().splitlines()
    assert all("trains this model: waiting" in line for line in waiting)
    assert last == "taken"


def test_the_same_folder_goes_on_at_once(clones: list[Path]) -> None:
    Lease(NAME, LONG_S, no_words).__enter__()  # and its process dies
    with Lease(NAME, LONG_S, no_words):
        pass
    assert leases() == {}


def test_a_copy_of_the_folder_is_another_one(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held, told = Lease(NAME, 1, no_words).__enter__(), []
    shutil.copytree(clones[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    started = time.monotonic()
    with Lease(NAME, 1, told.append):
        assert time.monotonic() - started >= 1
    assert len(told) == 1
    held.__exit__(LeaseLostError, LeaseLostError("it is lost"), None)


def test_a_sign_of_life_that_arrives_late_is_still_ours(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[tuple[str, str, str]] = []

    def swallowed(ref: str, before: str, after: str, timeout: float) -> None:
        late.append((ref, before, after))
        raise GitError("`git push` takes too long")

    with Lease(NAME, LONG_S, no_words) as lease:
        with monkeypatch.context() as patch:
            patch.setattr("imageclf.team.lease.change", swallowed)
            lease.beat()
        refs.change(*late[0])
        lease.beat()
        lease.beat()
    assert leases() == {}


def test_a_remote_that_does_not_answer_is_endured_for_a_while(
    clones: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(LeaseLostError), Lease(NAME, 2, no_words) as lease:
        (tmp_path / "origin.git").rename(tmp_path / "away")
        lease.beat()
        (tmp_path / "away").rename(tmp_path / "origin.git")
        lease.beat()
        (tmp_path / "origin.git").rename(tmp_path / "away")
        started = time.monotonic()
        while time.monotonic() < started + 10:
            lease.beat()
            time.sleep(lease.pause)
