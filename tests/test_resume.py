"""Killed with kill -9 and started again, a training ends in the same bytes, and so do the weights
and the features that it begins with."""

import random
import re
import shutil
import sys
from pathlib import Path

import pytest

from helpers.project import STAGES, Project
from helpers.real_data import REAL_DATA, needs
from imageclf.files import sha256_file
from interruptions import (
    BY_TIME,
    TRAIN,
    Baseline,
    Moment,
    Seen,
    interrupt,
    kill_at,
    kill_when,
    prepare,
    run_again,
    undisturbed,
)

TRAIN_ALONE = ("env", "PYTHONPATH=src", sys.executable, "stages/train.py")


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
    project.run(*TRAIN_ALONE)
    expected = digests(project)
    within = [Seen(False, epochs, steps=50, steps_per_epoch=100) for epochs in range(1, 6)]
    # On a busy machine the moments may pass unseen.
    assert any(kill_at(project, TRAIN_ALONE, within.__contains__) for _ in range(4))
    assert re.search("resuming in epoch [2-6], after 650 images", project.run(*TRAIN_ALONE))
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


def photographs(folder: Path, store: Path) -> Project:
    """A project whose data are a few flowers, small enough for a large network."""
    for name in ("daisy", "tulips"):
        (folder / "photographs" / name).mkdir(parents=True)
        for path in sorted((REAL_DATA / "flowers" / name).iterdir())[:30]:
            shutil.copy(path, folder / "photographs" / name)
    project = Project(folder / "project")
    shutil.copy(store, project.folder)
    project.set("data.source", str(folder / "photographs"))
    return project


def use(project: Project, recipe: str, settings: dict[str, str]) -> dict[str, str]:
    """Train as a recipe says, but for some settings; the md5s."""
    project.run("imageclf", "use", recipe)
    for path, value in {"transform.image_size": "64", "runtime.threads": "1", **settings}.items():
        project.set(path, value)
    project.run(*TRAIN)
    return project.md5s()


@pytest.fixture(scope="module")
def frozen(
    tmp_path_factory: pytest.TempPathFactory, migrated: Path
) -> tuple[Project, dict[str, str]]:
    """A project with a head upon EfficientNet-Lite0, and the md5s that nobody disturbed."""
    project = photographs(tmp_path_factory.mktemp("flowers"), migrated)
    return project, use(project, "my_photos", {})


@pytest.fixture(scope="module")
def finetuned(
    frozen: tuple[Project, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, dict[str, str]]:
    """The same, with the head first and the whole network then."""
    project = frozen[0].copy(tmp_path_factory.mktemp("finetuned") / "project")
    settings = {
        "train.epochs": "3",
        "train.head_epochs": "2",
        "train.batch_size": "2",  # an epoch of the whole network takes longer than a second
        "train.layer_decay": "0.8",
        "train.ema": "0.9",
        "runtime.checkpoint_minutes": "0.0001",
    }
    return project, use(project, "my_photos_finetune", settings)


@pytest.mark.slow
@needs("flowers")
@pytest.mark.parametrize(
    ("stage", "written"),
    [
        ("weights", ".downloads/weights/imagenet"),
        ("weights", "models/.pretrained.tmp"),
        ("embed", "data/.features.tmp/train.npy"),
    ],
)
def test_weights_and_features_after_a_kill(
    frozen: tuple[Project, dict[str, str]], stage: str, written: str
) -> None:
    project, expected = frozen
    path = project.folder / written
    run_again(project, stage, lambda: kill_when(project, TRAIN, lambda _: path.exists()))
    assert project.md5s() == expected
    assert not path.exists()


# The moment, and where the training goes on.
PHASES: dict[str, tuple[Moment, str]] = {
    "head": (lambda seen: (seen.epochs, seen.steps) == (1, 0), "epoch 2, after 0 images"),
    "between": (lambda seen: (seen.epochs, seen.steps) == (2, 0), "epoch 3, after 0 images"),
    "whole": (lambda seen: seen.epochs == 2 and seen.steps > 0, "epoch 3, after [1-9]"),
}


@pytest.mark.slow
@needs("flowers")
@pytest.mark.parametrize("phase", PHASES)
def test_fine_tuning_after_a_kill(finetuned: tuple[Project, dict[str, str]], phase: str) -> None:
    project, expected = finetuned
    moment, place = PHASES[phase]
    output = run_again(project, "train", lambda: kill_at(project, TRAIN, moment))
    assert re.search(f"resuming in {place}", output)
    assert project.md5s() == expected
