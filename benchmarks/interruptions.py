"""Kill a training again and again, and see whether it always ends in the same bytes.

    python benchmarks/interruptions.py --kills 20

A copy of the project trains a small convolutional network on the built-in digits, with everything
in use that a resumed training could get wrong: dropout, augmentation, a schedule, averaged
weights, checkpoints within each epoch. Then `dvc repro` is killed (kill -9 of the whole process
group) and, after `imageclf mend`, started again. The md5s in dvc.lock have to be those of the
training that nobody disturbed. `kills.py` kills other processes, and during other stages.

A kill by chance seldom meets a checkpoint being written or a validation, which last milliseconds.
So whenever the files of the checkpoint change, the training is frozen (SIGSTOP) and looked at: at
the right moment it is killed, otherwise it goes on. Where it ends before such a moment was seen,
there was no kill, and it is started anew; what follows a kill is never tried twice.
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from imageclf.params import load_params

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.project import Project, kill

EPOCHS = 8
SETTINGS = {
    "transform.image_size": "28",
    "augment.shift": "2",
    "augment.mixup": "0.2",
    "model.name": "cnn",
    "model.width": "16",
    "model.depth": "1",
    "model.dropout": "0.2",
    "train.epochs": f"{EPOCHS}",
    # 1,295 images in 100 steps: the training reports, and saves, after 50 and after 100 of them.
    "train.batch_size": "13",
    "train.schedule": "one_cycle",
    "train.ema": "0.9",
    "runtime.threads": "1",
    "runtime.checkpoint_minutes": "0.0001",
}
TRAIN = ("dvc", "repro", "train")
POLL_S = 0.0002
STOPPED_S = 0.005  # until a signal has reached every thread
LONGEST_S = 300


@dataclass(frozen=True)
class Seen:
    """The files of a checkpoint, seen while the training is frozen.

    Attributes:
        writing: a new checkpoint is being written beside the last one.
        epochs: that were finished when the last one was saved.
        steps: of the current epoch that were done then.
        steps_per_epoch: optimisation steps in an epoch.
    """

    writing: bool
    epochs: int
    steps: int
    steps_per_epoch: int


Moment = Callable[[Seen], bool]


def during_a_write(seen: Seen) -> bool:
    return seen.writing


def between_epochs(seen: Seen) -> bool:
    return not seen.writing and seen.steps == 0 and seen.epochs > 0


def during_validation(seen: Seen) -> bool:
    """The last step of an epoch is saved, what comes out of the epoch is not."""
    return not seen.writing and seen.steps == seen.steps_per_epoch


BY_DESIGN: dict[str, Moment] = {
    "checkpoint write": during_a_write,
    "between epochs": between_epochs,
    "validation": during_validation,
}
BY_TIME = "by time"


@dataclass(frozen=True)
class Baseline:
    """A training that nobody disturbed.

    Attributes:
        md5s: of the outs in dvc.lock.
        saved: seconds until the first checkpoint; before it a kill has little to destroy.
        ended: seconds until `dvc repro` had ended.
    """

    md5s: dict[str, str]
    saved: float
    ended: float


def prepare(folder: Path) -> Project:
    """A copy of the project with the digits prepared for the training that is to be killed."""
    project = Project(folder)
    for path, value in SETTINGS.items():
        project.set(path, value)
    project.run("dvc", "repro", "embed")
    project.commit("prepared")
    return project


def undisturbed(project: Project) -> Baseline:
    project.run(*TRAIN)  # the first one also makes the tracking store
    project.forget("train")
    started = time.monotonic()
    process = project.start(*TRAIN)
    while not _files(project) and process.poll() is None:
        time.sleep(POLL_S)
    saved = time.monotonic() - started
    assert process.wait() == 0
    return Baseline(project.md5s(), saved, time.monotonic() - started)


def kill_when(project: Project, command: Sequence[str], comes: Callable[[int], bool]) -> bool:
    """Start a command, and kill it when ``comes``, which gets its process group, says so.

    Returns:
        False if the command ended before.
    """
    process = project.start(*command)
    deadline = time.monotonic() + LONGEST_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            kill(process)
            raise TimeoutError(f"{command} did not end within {LONGEST_S} s")
        time.sleep(POLL_S)
        if comes(process.pid):
            kill(process)
            return True
    return False


def kill_at(project: Project, command: Sequence[str], moment: Moment, skip: int = 0) -> bool:
    """Start a training and kill it when ``moment`` comes for the first time after ``skip`` others.

    Returns:
        False if the training ended before.
    """
    before = _files(project)

    def comes(group: int) -> bool:
        nonlocal before, skip
        if (files := _files(project)) == before:
            return False
        before = files
        os.killpg(group, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        seen = _look(project)
        if seen and moment(seen):
            if skip == 0:
                return True
            skip -= 1
        with suppress(ProcessLookupError):  # it ended just before
            os.killpg(group, signal.SIGCONT)
        return False

    return kill_when(project, command, comes)


def kill_after(project: Project, command: Sequence[str], seconds: float) -> bool:
    """Start a training and kill it after some time; False if it ended before."""
    process = project.start(*command)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return False
    kill(process)
    return True


def run_again(project: Project, stage: str, strike: Callable[[], bool]) -> str:
    """Let ``strike`` kill `dvc repro` in a stage; what the next one says, which runs it again.

    ``strike`` is repeated while it is False because it came too late.
    """
    project.forget(stage)
    while not strike():
        project.forget(stage)
    project.run("imageclf", "mend")
    output = project.run(*TRAIN)
    assert f"Running stage '{stage}'" in output, output
    return output


def interrupt(project: Project, baseline: Baseline, name: str, draw: random.Random) -> bool:
    """Kill a training at a moment, resume it and print whether the md5s are the same."""
    missed, when = -1, name

    def strike() -> bool:
        nonlocal missed, when
        missed += 1
        if name in BY_DESIGN:
            return kill_at(project, TRAIN, BY_DESIGN[name], skip=draw.randrange(EPOCHS - 1))
        seconds = draw.uniform(baseline.saved, baseline.ended)
        when = f"after {seconds:.1f} s"
        return kill_after(project, TRAIN, seconds)

    found = re.search(r"resuming in (.*)", run_again(project, "train", strike))
    start = found[1] if found else "the start"
    same = project.md5s() == baseline.md5s
    verdict = "the same md5s" if same else "OTHER MD5S"
    click.echo(f"killed: {when:<17} ({missed} missed) resumed from: {start:<30} {verdict}")
    return same


def _files(project: Project) -> dict[Path, int]:
    """The files of the checkpoints by their inodes: a file that is replaced has another one."""
    found = {}
    for path in (project.folder / ".checkpoints").glob("*/*latest.pt*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            found[path] = path.stat().st_ino
    return found


def _look(project: Project) -> Seen | None:
    """What the checkpoint says; None where there is none yet."""
    import numpy as np
    import torch

    names = {path.name: path for path in _files(project)}
    if not names:
        return None
    images = len(np.load(project.folder / "data/prepared/train.labels.npy"))
    steps_per_epoch = -(-images // load_params(project.folder / "params.yaml").train.batch_size)
    state: dict[str, Any] = {"history": [], "steps_done": 0}
    if "latest.pt" in names:
        state = torch.load(names["latest.pt"], weights_only=True)
    epochs = len(state["history"])
    steps = state["steps_done"] - epochs * steps_per_epoch
    return Seen(".latest.pt.tmp" in names, epochs, steps, steps_per_epoch)


@click.command(help=__doc__.split("\n", 1)[0])
@click.option("--kills", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--seed", default=1, show_default=True, help="Draws the moments.")
def main(kills: int, seed: int) -> None:
    draw = random.Random(seed)
    # MLflow's process outlives the training that it reports, and may still write a file.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        project = prepare(Path(folder))
        baseline = undisturbed(project)
        click.echo(f"undisturbed: {baseline.ended:.1f} s, {len(baseline.md5s)} outs in dvc.lock")
        names = [*BY_DESIGN, *[BY_TIME] * kills][:kills]
        same = sum(interrupt(project, baseline, name, draw) for name in names)
    click.echo(f"{same} of {kills} interrupted trainings ended in the same md5s")
    sys.exit(0 if same == kills else 1)


if __name__ == "__main__":
    main()
