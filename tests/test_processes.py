"""The train stage in two processes under torchrun: as one would train, and what ends it."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from helpers.project import Project, kill
from helpers.two_processes import Job, carry_out, two_processes
from imageclf.data.prepared import load_split
from imageclf.params import load_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ENVIRONMENT = ("env", "PYTHONPATH=src:stages")
# The train stage, in which the second process comes to grief in its 30th step.
SABOTAGED = """
import os, signal
from imageclf.files import UserError
from imageclf.training.learner import Learner
from train import main

def step(self, images, labels, size, number, rate):
    if os.environ.get("RANK") == "1" and number == 30:
        {trouble}
    return take(self, images, labels, size, number, rate)

take, Learner.step = Learner.step, step
main()
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The digits, prepared, for a training in two processes that never ends by itself."""
    project = Project(tmp_path_factory.mktemp("digits"))
    project.set("runtime.processes", "2")
    project.set("runtime.checkpoint_minutes", "0.0001")
    project.set("train.epochs", "100000")
    project.run("dvc", "repro", "embed")
    project.commit("prepared")
    return project


@pytest.fixture
def project(digits: Project, migrated: Path) -> Iterator[Project]:
    """The same, where nothing was trained; a training that a failed test left is ended."""
    forget(digits, migrated)
    yield digits
    digits.kill_started()


def forget(project: Project, store: Path) -> None:
    """Let DVC and MLflow know of no training."""
    project.run("git", "checkout", "--quiet", "dvc.lock", "params.yaml")
    for left in (".dvc/cache/runs", ".imageclf", ".checkpoints", "models/classifier"):
        shutil.rmtree(project.folder / left, ignore_errors=True)
    (project.folder / "reports/history.csv").unlink(missing_ok=True)
    shutil.copy(store, project.folder)


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
    """The processes that torchrun started in the project's folder.

    What a worker is about to start has its environment and command line for a moment.
    """
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (process / "environ").read_bytes().split(b"\0")
            is_worker = any(each.startswith(b"RANK=") for each in variables)
            command = (process / "cmdline").read_bytes()
            here = (process / "cwd").readlink() == project.folder
            if is_worker and here and b"imageclf.tracking.reporter" not in command:
                parents[int(process.name)] = int((process / "stat").read_text().split()[3])
    return sorted(number for number, parent in parents.items() if parent not in parents)


def wait_for(holds: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def statuses(project: Project) -> list[str]:
    """Of the runs in MLflow, when what reports to it has ended."""

    def found() -> list[str]:
        return [run.info.status for run in project.runs()]

    deadline = time.monotonic() + 30
    while found() in ([], ["RUNNING"]) and time.monotonic() < deadline:
        time.sleep(0.2)
    if found() in ([], ["RUNNING"]):  # the machine is busy, and the training waits 15 s at most
        project.run("imageclf", "sync", "--all")
    return found()


def told(stderr: str) -> list[str]:
    """Its lines; that MLflow answers late, and what is in the patch, is another matter."""
    others = ("tracking waits: ", "changes.patch: ")
    return [line for line in stderr.splitlines() if line and not line.startswith(others)]


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
        # A shell's background job ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    wait_for(lambda: saved(project))
    os.killpg(process.pid, sent)  # as a terminal does
    _, said = process.communicate(timeout=60)
    assert process.returncode == (1 if sent == signal.SIGINT else -sent)
    assert told(said) == (["Aborted!"] if sent == signal.SIGINT else [])
    assert not workers(project)
    assert statuses(project) == ["KILLED"]


def test_two_processes_train_the_digits_as_one(project: Project, tmp_path: Path) -> None:
    project.set("train.epochs", "20")
    histories = []
    for processes in ("1", "2"):
        project.set("runtime.processes", processes)
        project.run(*ENVIRONMENT, f"TMPDIR={tmp_path}", sys.executable, "stages/train.py")
        histories.append([tuple(row.values()) for row in history(project)])
    assert len(histories[0]) == 20
    assert np.allclose(*histories, rtol=0, atol=1e-4)
    (run,) = project.runs()  # one fingerprint, one run
    assert run.info.status == "FINISHED"
    assert run.data.tags["processes"] == "2"
    assert not [*tmp_path.glob("torchelastic_*")]


def test_kill_9_of_the_group_leaves_nobody(project: Project) -> None:
    process = project.start(*ENVIRONMENT, sys.executable, "stages/train.py")
    wait_for(lambda: saved(project))
    assert len(workers(project)) == 2
    kill(process)
    wait_for(lambda: not workers(project), 2)
    assert statuses(project) == ["KILLED"]


@pytest.mark.parametrize("same", [True, False], ids=["same state", "another rate"])
def test_two_machines(project: Project, tmp_path: Path, free_port: int, same: bool) -> None:
    project.set("train.epochs", "3")
    project.set("runtime.processes", "1")
    shutil.copytree(project.folder, tmp_path / "second", symlinks=True)
    if not same:
        project.set("train.learning_rate", "0.5")
    address = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port)}
    machines = [
        subprocess.Popen(
            (*ENVIRONMENT, sys.executable, "stages/train.py"),
            cwd=folder,
            env=project.environment | address | {"PET_NODE_RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, folder in enumerate((project.folder, tmp_path / "second"))
    ]
    said = [machine.communicate(timeout=120) for machine in machines]
    assert not (tmp_path / "second/models/classifier").exists()
    assert not (tmp_path / "second/.checkpoints").exists()
    assert said[1][0] == ""
    if same:
        assert [machine.returncode for machine in machines] == [0, 0]
        assert "2 processes" in said[0][0]
        assert len(history(project)) == 3
        return
    for machine, (_, stderr) in zip(machines, said, strict=True):
        assert machine.returncode == 2
        (line,) = told(stderr)
        assert line.startswith("error: the machines would not train the same model: bring params")


@dataclass(frozen=True)
class Fashion:
    """Fashion-MNIST, prepared, and what one process made of it in two epochs.

    Two processes round otherwise, and this training blows up any rounding: after some 200 steps a
    unit that was silent answers to an image in one of two trainings only, and Adam makes a step of
    full size of it. One process whose first weights differ by one part in ten million ends as far
    away. So the losses are compared roughly here, closely for the digits, and to nine digits in
    double precision.
    """

    project: Project
    history: list[dict[str, float]]

    def check(self) -> None:
        """See that the training ended as the one of one process did, with one run in MLflow."""
        ours = history(self.project)
        assert len(ours) == len(self.history) == 2
        for row, expected in zip(ours, self.history, strict=True):
            assert row == pytest.approx(expected, abs=0.05)
        (run,) = self.project.runs()
        assert run.info.status == "FINISHED"


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Fashion:
    project = Project(tmp_path_factory.mktemp("fashion"))
    shutil.copy(migrated, project.folder)
    project.run("imageclf", "use", "fashion_part4")
    project.set("train.epochs", "2")
    project.set("runtime.checkpoint_minutes", "0.01")
    if "no source gave" in project.run("dvc", "repro", "embed", check=False):
        pytest.skip("Fashion-MNIST cannot be had")
    project.set("runtime.processes", "2")
    project.commit("prepared")
    project.set("runtime.processes", "1")
    project.run("dvc", "repro", "train")
    return Fashion(project, history(project))


def test_in_double_precision_two_processes_train_fashion_part4_as_one(
    fashion: Fashion, tmp_path: Path
) -> None:
    folder = fashion.project.folder
    train, val = (load_split(folder / "data/prepared", name) for name in ("train", "val"))
    job = Job(load_params(folder / "params.yaml"), train, val, double=True)
    with two_processes(tmp_path) as pair:
        together = pair(job)
    alone = carry_out(job)
    assert together.values["steps_done"] == alone.values["steps_done"] == 2 * 844
    assert together.losses == pytest.approx(alone.losses, abs=1e-8)


def history(project: Project) -> list[dict[str, float]]:
    with (project.folder / "reports/history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_two_processes_train_fashion_part4_as_one(fashion: Fashion, migrated: Path) -> None:
    forget(fashion.project, migrated)
    assert "train" in fashion.project.repro()
    fashion.check()
    (run,) = fashion.project.runs()
    assert run.data.tags["processes"] == "2"


@pytest.mark.parametrize("killed", ["group", "one process"])
def test_one_process_finishes_what_two_began(fashion: Fashion, migrated: Path, killed: str) -> None:
    project = fashion.project
    forget(project, migrated)
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
