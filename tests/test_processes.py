"""The train stage in two processes under torchrun: as one would train, and what ends it."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from imageclf.datasets import load_split
from imageclf.params import load_params
from project import Project, kill
from together import Job, carry_out, two_processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ENVIRONMENT = ("env", "PYTHONPATH=src:stages")
# The train stage, in which the second process comes to grief in its 30th step.
SABOTAGED = """
import os, signal
from imageclf.files import UserError
from imageclf.training import Training
from train import main

def step(self, batch):
    if os.environ.get("RANK") == "1" and self._steps_done == 30:
        {trouble}
    take(self, batch)

take, Training._step = Training._step, step
main()
"""


@pytest.fixture
def project(tmp_path: Path, migrated: Path) -> Project:
    """The digits, prepared, for a training in two processes that never ends by itself."""
    project = Project(tmp_path)
    shutil.copy(migrated, tmp_path)
    (tmp_path / ".dvc/tmp").mkdir()
    for stage in ("fetch", "transform"):
        project.run(*ENVIRONMENT, sys.executable, f"stages/{stage}.py")
    project.set("runtime.processes", "2")
    project.set("runtime.checkpoint_minutes", "0.0001")
    project.set("train.epochs", "100000")
    return project


def end(project: Project, *command: str) -> subprocess.CompletedProcess[str]:
    """What a command that does not succeed says, once no process of its training is left."""
    done = subprocess.run(
        (*ENVIRONMENT, sys.executable, *command),
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wait_for(lambda: not workers(project), 5)
    assert not (project.folder / "models/classifier").exists()
    assert not (project.folder / "reports/history.csv").exists()
    return done


def workers(project: Project) -> list[int]:
    """The processes that torchrun started in the project's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (process / "environ").read_bytes().split(b"\0")
            is_worker = any(each.startswith(b"RANK=") for each in variables)
            command = (process / "cmdline").read_bytes()
            here = (process / "cwd").readlink() == project.folder
            if is_worker and here and b"imageclf.tracking" not in command:
                found.append(int(process.name))
    return sorted(found)


def wait_for(holds: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def statuses(project: Project) -> list[str]:
    """Of the runs in MLflow, when the process that reports has ended."""
    found: list[str] = []
    wait_for(lambda: found.extend(run.info.status for run in project.runs()) or found)
    while "RUNNING" in found:
        time.sleep(0.2)
        found = [run.info.status for run in project.runs()]
    return found


def told(stderr: str) -> list[str]:
    """Its lines; that MLflow answers late is another matter."""
    lines = (line for line in stderr.splitlines() if not line.startswith("tracking waits: "))
    return [line for line in lines if line]


def saved(project: Project) -> bool:
    return any((project.folder / ".checkpoints").glob("*/latest.pt"))


def sabotage(project: Project, trouble: str) -> subprocess.CompletedProcess[str]:
    (project.folder / "sabotaged.py").write_text(SABOTAGED.format(trouble=trouble))
    return end(project, "sabotaged.py")


def test_an_error_in_one_process_ends_all_with_its_line(project: Project) -> None:
    done = sabotage(project, 'raise UserError("one line, and what to do")')
    assert done.returncode == 2
    assert told(done.stderr) == ["error: one line, and what to do"]
    assert statuses(project) == ["FAILED"]


def test_an_error_in_all_processes_is_told_once(project: Project) -> None:
    project.set("train.optimizer", "sgd")
    project.set("train.learning_rate", "1e30")
    project.set("train.sanity_checks", "false")
    done = end(project, "stages/train.py")
    assert done.returncode == 2
    (line,) = told(done.stderr)
    assert line.startswith("error: the loss became")
    assert statuses(project) == ["FAILED"]


def test_a_bug_in_one_process_shows_its_traceback_alone(project: Project) -> None:
    done = sabotage(project, "1 / 0")
    assert done.returncode != 0
    assert done.stderr.count("Traceback") == 1
    assert "ZeroDivisionError: division by zero" in told(done.stderr)
    assert statuses(project) == ["FAILED"]


def test_the_death_of_one_process_ends_all_with_one_line(project: Project) -> None:
    done = sabotage(project, "os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == 2
    assert told(done.stderr) == [
        "error: process 1 of the training was ended by SIGKILL; "
        "`dvc repro` goes on from the last checkpoint"
    ]
    assert statuses(project) == ["KILLED"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all(project: Project, sent: signal.Signals) -> None:
    process = subprocess.Popen(
        (*ENVIRONMENT, sys.executable, "stages/train.py"),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: saved(project))
    os.killpg(process.pid, sent)  # as a terminal does
    _, said = process.communicate(timeout=60)
    assert process.returncode == (1 if sent == signal.SIGINT else -sent)
    assert told(said) == (["Aborted!"] if sent == signal.SIGINT else [])
    assert not workers(project)
    assert statuses(project) == ["KILLED"]


def test_two_processes_train_the_digits_as_one(project: Project) -> None:
    project.set("train.epochs", "20")
    histories = []
    for processes in ("1", "2"):
        project.set("runtime.processes", processes)
        project.run(*ENVIRONMENT, sys.executable, "stages/train.py")
        histories.append([tuple(row.values()) for row in history(project)])
    assert len(histories[0]) == 20
    assert np.allclose(*histories, rtol=0, atol=1e-4)
    (run,) = project.runs()  # one fingerprint, one run
    assert run.info.status == "FINISHED"
    assert run.data.tags["processes"] == "2"


def test_kill_9_of_the_group_leaves_nobody(project: Project) -> None:
    process = project.start(*ENVIRONMENT, sys.executable, "stages/train.py")
    wait_for(lambda: saved(project))
    assert len(workers(project)) == 2
    kill(process)
    wait_for(lambda: not workers(project), 2)
    assert statuses(project) == ["KILLED"]


@dataclass(frozen=True)
class Fashion:
    """Fashion-MNIST, prepared, and what one process made of it in three epochs.

    Two processes round otherwise, and this training blows up any rounding: after some 200 steps a
    unit that was silent answers to an image in one of two trainings only, and Adam makes a step of
    full size of it. One process whose first weights differ by one part in ten million ends as far
    away. So the losses are compared roughly here, closely for the digits, and to nine digits in
    double precision.
    """

    project: Project
    history: list[dict[str, float]]
    store: Path

    def forget(self) -> None:
        """Let DVC and MLflow know of no training, and ask for two processes."""
        self.project.run("git", "checkout", "--quiet", "dvc.lock")
        for left in (".dvc/cache/runs", ".imageclf", ".checkpoints"):
            shutil.rmtree(self.project.folder / left, ignore_errors=True)
        shutil.copy(self.store, self.project.folder)
        self.project.set("runtime.processes", "2")

    def check(self) -> None:
        """See that the training ended as the one of one process did, with one run in MLflow."""
        ours = history(self.project)
        assert len(ours) == len(self.history) == 3
        for row, expected in zip(ours, self.history, strict=True):
            assert row == pytest.approx(expected, abs=0.05)
        (run,) = self.project.runs()
        assert run.info.status == "FINISHED"


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Fashion:
    project = Project(tmp_path_factory.mktemp("fashion"))
    shutil.copy(migrated, project.folder)
    project.run("imageclf", "use", "fashion_part4")
    project.set("train.epochs", "3")
    project.set("runtime.checkpoint_minutes", "0.01")
    if "no source gave" in project.run("dvc", "repro", "transform", check=False):
        pytest.skip("Fashion-MNIST cannot be had")
    project.commit("prepared")
    project.set("runtime.processes", "1")
    project.run("dvc", "repro", "train")
    return Fashion(project, history(project), migrated)


def test_in_double_precision_two_processes_train_fashion_part4_as_one(
    fashion: Fashion, tmp_path: Path
) -> None:
    folder = fashion.project.folder
    train, val = (load_split(folder / "data/prepared", name) for name in ("train", "val"))
    job = Job(load_params(folder / "params.yaml"), train, val, double=True)
    with two_processes(tmp_path) as pair:
        together = pair(job)
    alone = carry_out(job)
    assert together.values["steps_done"] == alone.values["steps_done"] == 3 * 844
    assert together.losses == pytest.approx(alone.losses, abs=1e-8)


def history(project: Project) -> list[dict[str, float]]:
    with (project.folder / "reports/history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_two_processes_train_fashion_part4_as_one(fashion: Fashion) -> None:
    fashion.forget()
    assert "train" in fashion.project.repro()
    fashion.check()
    (run,) = fashion.project.runs()
    assert run.data.tags["processes"] == "2"


@pytest.mark.parametrize("killed", ["group", "one process"])
def test_one_process_finishes_what_two_began(fashion: Fashion, killed: str) -> None:
    fashion.forget()
    project = fashion.project
    process = project.start("dvc", "repro")
    wait_for(lambda: saved(project))
    if killed == "group":
        kill(process)
    else:
        os.kill(workers(project)[-1], signal.SIGKILL)
        assert process.wait() != 0
    wait_for(lambda: not workers(project), 2)
    project.set("runtime.processes", "1")
    said = project.run("dvc", "repro")
    assert "resuming in epoch" in said
    fashion.check()
