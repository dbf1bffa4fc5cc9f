"""A project that was trained before the library stood in wings goes on after `git pull`."""

import json
import shutil
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from helpers.params import params_text
from helpers.project import STAGES, Project
from imageclf.files import read_yaml
from imageclf.recipes import BASE, Recipe, use_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# fixtures/old_project.sh made it.
OLD = Path(__file__).parent / "fixtures/old_project.tar.xz"


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The code of today upon the commits, journal, cache and store of two old trainings."""
    project = Project(tmp_path_factory.mktemp("pulled"))
    with tarfile.open(OLD) as archive:
        archive.extractall(project.folder, filter="data")
    bundle = project.folder / "history.bundle"
    project.run("git", "fetch", "--quiet", str(bundle), "main")
    bundle.unlink()
    project.run("git", "reset", "--quiet", "--soft", "FETCH_HEAD")
    merge_params(project.folder / "params.yaml")
    project.commit("pull")
    project.run("dvc", "checkout", "--allow-missing")
    return project


def merge_params(path: Path) -> None:
    """Leave what git's merge leaves: the values of the old file, and the keys that are new."""
    values = read_yaml(path)
    path.write_text(params_text())
    use_recipe(Recipe(BASE, "", values), path)


def shown(project: Project) -> pd.DataFrame:
    """What `imageclf runs` shows, by the fingerprint."""
    path = project.folder / "runs.csv"
    path.write_text(project.run("imageclf", "runs", "--csv"))
    return pd.read_csv(path).set_index("fingerprint").sort_index()


def test_the_old_runs_are_known_and_new_ones_come_beside_them(
    pulled: Project, tmp_path: Path
) -> None:
    project = pulled.copy(tmp_path / "project")
    runs = shown(project)
    assert sorted(runs["train.learning_rate"]) == [0.003, 0.01]
    assert (runs["test_accuracy"] > 0.8).all()
    for fingerprint, run in runs.iterrows():
        found = json.loads(project.run("imageclf", "trace", str(fingerprint), "--json"))
        assert found["params"]["train.learning_rate"] == run["train.learning_rate"]
        assert found["metrics"]["test_accuracy"] == run["test_accuracy"]
        assert found["commit_subject"] in {"Use digits", "Train"}
        kept = {out["path"] for out in found["outs"] if out["in_cache"]}
        assert kept >= {"models/classifier", "models/exported", "reports/evaluation"}
    # The merged params.yaml tells parameters that the old code did not know.
    assert "1 run in agreement, 1 brought up" in project.run("imageclf", "sync", "--all")
    assert "2 runs in agreement, 0 brought up" in project.run("imageclf", "sync", "--all")

    assert project.repro() == [*STAGES]
    later = shown(project)
    assert len(later) == 3
    known = runs.columns.drop("workspace")
    assert later.loc[runs.index, known].equals(runs[known])
    assert project.repro() == []
    assert "3 runs in agreement, 0 brought up" in project.run("imageclf", "sync", "--all")


def test_an_empty_store_is_written_full_from_the_old_journal_and_cache(
    pulled: Project, tmp_path: Path
) -> None:
    before = shown(pulled.copy(tmp_path / "before"))
    project = pulled.copy(tmp_path / "project")
    (project.folder / "mlflow.db").unlink()
    shutil.rmtree(project.folder / "mlartifacts")
    assert "2 brought up to date" in project.run("imageclf", "sync", "--all")
    pd.testing.assert_frame_equal(shown(project)[before.columns], before)
