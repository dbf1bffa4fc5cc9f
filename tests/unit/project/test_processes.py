"""A stage does not outlive its `dvc`, and its processes do not run at the same time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imageclf.files import UserError
from imageclf.project.dvc import DVC, dvc
from imageclf.project.mend import LEFT, mend
from imageclf.project.processes import LOCKS, RWLOCK

# A stage that says its number, and another process of it that is still there says so too.
STAGE = """
import os, sys, time
from pathlib import Path
from imageclf.project.processes import under_dvc

with under_dvc():
    Path("numbers").open("a").write(f"{os.getpid()}\\n")
    while Path("source").read_text() == "wait":
        time.sleep(0.05)
    Path("out").write_text("done")
"""


@pytest.fixture
def pipeline(project: Path) -> Path:
    """A project with one stage, which waits while the file source says so."""
    Path("source").write_text("wait")
    Path("stage.py").write_text(STAGE)
    stage = {"cmd": f"{sys.executable} stage.py", "deps": ["source"], "outs": ["out"]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"stage": stage}}))
    assert dvc("init", "--no-scm", "--quiet").returncode == 0
    return project


def waiting_stage() -> tuple["subprocess.Popen[bytes]", int]:
    """A `dvc repro` whose stage waits, and the stage's process id."""
    process = subprocess.Popen([*DVC, "repro", "--quiet"], start_new_session=True)
    while not (Path("numbers").exists() and Path("numbers").read_text().endswith("\n")):
        assert process.poll() is None
        time.sleep(0.02)
    return process, int(Path("numbers").read_text().split()[-1])


def has_ended(pid: int) -> bool:
    """Whether a process has ended, even if what adopted it has not taken notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])  # which may stay between the two
def test_a_stage_ends_with_its_dvc_and_the_next_one_waits_for_that(
    pipeline: Path, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", shell)
    process, stage = waiting_stage()
    process.kill()
    process.wait()
    Path("numbers").unlink()
    again, other = waiting_stage()
    assert other != stage
    assert has_ended(stage)
    Path("source").write_text("go on")
    assert again.wait() == 0


def test_a_stage_whose_dvc_was_killed_before_it_began(pipeline: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    RWLOCK.write_text(json.dumps({"write": {"/out": {"pid": gone.pid, "cmd": "dvc repro"}}}))
    environment = os.environ | {"DVC_STAGE": "stage"}
    done = subprocess.run(
        [sys.executable, "stage.py"], env=environment, capture_output=True, check=False, text=True
    )
    assert "the `dvc` that started this stage was killed" in done.stderr
    assert not Path("out").exists()


def test_a_stage_at_work_keeps_a_torn_rwlock_from_being_removed(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, _ = waiting_stage()
    assert list(LOCKS.iterdir())
    RWLOCK.write_text("")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="a `dvc` command is at"):
        patch.setattr("imageclf.project.mend.LOCK_WAIT_S", 0.1)
        mend()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert mend() == [f"removed .dvc/tmp/rwlock, {LEFT}"]
