"""A project that was moved or copied keeps its models, and writes to itself alone."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from helpers.tracked import Registry
from imageclf.tracking.connection import opened_store
from imageclf.tracking.places import COLUMNS
from imageclf.tracking.registry import downloaded_model

MODEL = "models:/digits@champion"


@pytest.fixture
def models(project: Path, onnx_file: Path) -> Registry:
    """A registered model; the current folder is the project."""
    models = Registry(project, onnx_file)
    models.register()
    return models


@pytest.fixture
def go_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Change the current folder, as for a new process: MLflow sets the address of its store."""

    def go_to(folder: Path) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setenv("DVC_ROOT", os.fspath(folder))
        monkeypatch.chdir(folder)

    return go_to


def artifacts(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("mlartifacts/**/*")}


def recorded(folder: Path) -> list[str]:
    """Every place in the database."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        rows = [
            store.execute(f"SELECT {column} FROM {table}").fetchall() for table, column in COLUMNS
        ]
    return [place for found in rows for (place,) in found]


def test_a_moved_project(models: Registry, tmp_path: Path, go_to: Callable[[Path], None]) -> None:
    moved = tmp_path / "another place with 100 %"
    models.folder.rename(moved)
    go_to(moved)
    with downloaded_model(MODEL) as (folder, _):
        assert any(folder.iterdir())
    assert all(
        "my%20project" not in place and "my project" not in place for place in recorded(moved)
    )
    later = Registry(moved, models.onnx)
    assert later.register(90, "b" * 64).aliases == ["challenger", "champion"]
    assert not models.folder.exists()


def test_a_copied_project(models: Registry, tmp_path: Path, go_to: Callable[[Path], None]) -> None:
    before, places = artifacts(models.folder), recorded(models.folder)
    copy = Path(shutil.copytree(models.folder, tmp_path / "copy"))
    go_to(copy)
    Registry(copy, models.onnx).register(90, "b" * 64)
    assert artifacts(models.folder) == before
    assert artifacts(copy) > before
    go_to(models.folder)
    assert models.champion() == "1"
    assert recorded(models.folder) == places


def test_another_name_of_the_same_folder_changes_nothing(
    models: Registry, tmp_path: Path, go_to: Callable[[Path], None]
) -> None:
    places = recorded(models.folder)
    (tmp_path / "link").symlink_to(models.folder)
    go_to(tmp_path / "link")
    with opened_store({}) as store:
        assert store.uri.endswith("link/mlflow.db")
    assert recorded(models.folder) == places
