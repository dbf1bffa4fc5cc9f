"""Killed with kill -9 and started again, a training ends in the same bytes."""

import random
import re
import shutil
import sys
from pathlib import Path

import pytest

from helpers.project import STAGES, Project
from imageclf.files import sha256_file
from interruptions import BY_TIME, Baseline, Seen, interrupt, kill_at, prepare, undisturbed

TRAIN = ("env", "PYTHONPATH=src", sys.executable, "stages/train.py")


def digests(project: Project) -> dict[str, str]:
    """The sha256 of every file that the train stage writes."""
    files = sorted((project.folder / "models/classifier").iterdir())
    files.append(project.folder / "reports/history.csv")
    return {path.name: sha256_file(path) for path in files}


@pytest.mark.slow
def test_one_kill_within_an_epoch(tmp_path: Path, migrated: Path) -> None:
    project = Project(tmp_path)
    shutil.copy(migrated, tmp_path)
    project.set("train.epochs", "6")
    project.set("train.batch_size", "13")
    project.set("runtime.checkpoint_minutes", "0.0001")
    for stage in STAGES[: STAGES.index("train")]:
        project.run("env", "PYTHONPATH=src", sys.executable, f"stages/{stage}.py")
    project.run(*TRAIN)
    expected = digests(project)
    within = [Seen(False, epochs, steps=50, steps_per_epoch=100) for epochs in range(1, 6)]
    # On a busy machine the moments may pass unseen.
    assert any(kill_at(project, TRAIN, within.__contains__) for _ in range(4))
    assert re.search("resuming in epoch [2-6], after 650 images", project.run(*TRAIN))
    assert digests(project) == expected
    assert not list((project.folder / ".checkpoints").glob("*/*.pt*"))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Baseline]:
    """A project, and what a training that nobody disturbed made in it."""
    project = prepare(tmp_path_factory.mktemp("project"))
    return project, undisturbed(project)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["checkpoint write", "between epochs", BY_TIME])
def test_dvc_repro_after_a_kill(interrupted: tuple[Project, Baseline], moment: str) -> None:
    assert interrupt(*interrupted, moment, random.Random(1))
