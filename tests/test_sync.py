"""MLflow is a projection: what DVC ran in any way is in it once, and comes back from the files."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.project import Project
from imageclf.files import sha256_file
from imageclf.tracking.journal import Journal
from imageclf.tracking.metric_names import grouped
from imageclf.tracking.tags import whole
from imageclf.training.history import TRACKED

SHOWN = [*map(grouped, TRACKED)]


class Store:
    """All that MLflow's client tells of a project's runs and models."""

    def __init__(self, project: Project) -> None:
        self.client = project.client()
        self.runs = {run.data.tags["fingerprint"]: run for run in project.runs()}
        assert len(self.runs) == len(project.runs())

    def contents(self, folder: Path) -> dict[str, Any]:
        """Everything but the ids that MLflow draws; ``folder`` is for the artifacts."""
        shown = {fingerprint: self.run(run, folder) for fingerprint, run in self.runs.items()}
        (model,) = self.client.search_registered_models()
        assert "champion" in model.aliases
        versions = sorted(self.client.search_model_versions(), key=lambda each: int(each.version))
        trained = {run.info.run_id: fingerprint for fingerprint, run in self.runs.items()}
        return shown | {
            "aliases": model.aliases,
            "versions": [(each.version, each.tags, trained[each.run_id]) for each in versions],
        }

    def run(self, run: Any, folder: Path) -> dict[str, Any]:
        info = run.info
        points = {
            (point.key, point.step, point.value, point.timestamp)
            for key in run.data.metrics
            for point in self.client.get_metric_history(info.run_id, key)
        }
        kept = folder / info.run_id
        kept.mkdir()
        if self.client.list_artifacts(info.run_id):
            self.client.download_artifacts(info.run_id, "", str(kept))
        files = [path for path in kept.rglob("*") if path.is_file()]
        return {
            "name": info.run_name,
            "status": info.status,
            "times": (info.start_time, info.end_time),
            "params": run.data.params,
            "tags": {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.")},
            "points": points,
            "artifacts": {str(path.relative_to(kept)): sha256_file(path) for path in files},
            "inputs": sorted(
                (each.dataset.name, each.dataset.digest, each.dataset.source)
                for each in run.inputs.dataset_inputs
            ),
            "models": len(run.outputs.model_outputs),
        }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Project]:
    """Two rates with `dvc repro`, the first again as an experiment, one that fails, two aside."""
    project = Project(tmp_path_factory.mktemp("project"))
    shutil.copy(migrated, project.folder)
    project.set("train.epochs", "3")
    for rate in ("0.1", "0.5"):
        project.set("train.learning_rate", rate)
        project.repro()
    project.run("dvc", "exp", "run", "--name", "again", "--set-param", "train.learning_rate=0.1")
    project.set("train.learning_rate", "1e30")
    assert "the loss" in project.run("dvc", "repro", check=False)
    project.set("train.learning_rate", "0.1")
    run = ("dvc", "exp", "run", "--set-param")
    project.run(*run, "train.learning_rate=0.02", "--temp", "--name", "aside")
    project.run(*run, "train.learning_rate=0.03", "--queue", "--name", "queued")
    project.run("dvc", "queue", "start")
    project.run("dvc", "queue", "logs", "queued", "--follow")
    return project


def rates(project: Project) -> dict[str, Any]:
    """The runs by their learning rate."""
    return {run.data.params["train.learning_rate"]: run for run in project.runs()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_training_is_one_run_that_says_how_it_came_about(trained: Project) -> None:
    runs = rates(trained)
    assert len(trained.runs()) == len(runs) == 5
    assert {rate: run.info.status for rate, run in runs.items()} == {
        "0.1": "FINISHED",
        "0.5": "FINISHED",
        "1e+30": "FAILED",
        "0.02": "FINISHED",
        "0.03": "FINISHED",
    }
    restored = [rate for rate, run in runs.items() if "restored_from_cache" in run.data.tags]
    assert restored == ["0.1"]
    names = {rate: run.data.tags.get("DVC_EXP_NAME") for rate, run in runs.items()}
    assert names == {"0.1": "again", "0.5": None, "1e+30": None, "0.02": "aside", "0.03": "queued"}
    for rate, run in runs.items():
        patch = Journal(run.data.tags["fingerprint"], trained.folder).patch.read_text()
        assert f"+  learning_rate: {rate}" in patch.replace("1e30", "1e+30")
        assert whole(run.data.tags)["git_commit"] == trained.run("git", "rev-parse", "HEAD").strip()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wiped_store_comes_back_whole(trained: Project, tmp_path: Path) -> None:
    for name in ("before", "after", "again"):
        (tmp_path / name).mkdir()
    before = Store(trained).contents(tmp_path / "before")
    assert {key for run in rates(trained).values() for key in run.data.metrics} >= {*SHOWN}
    assert "5 runs in agreement, 0 brought up to date" in trained.run("imageclf", "sync", "--all")
    assert Store(trained).contents(tmp_path / "again") == before

    (trained.folder / "mlflow.db").unlink()
    output = trained.run("imageclf", "sync", "--all")
    assert "0 runs in agreement, 5 brought up to date" in output
    store = Store(trained)
    assert store.contents(tmp_path / "after") == before
    assert "5 runs in agreement, 0 brought up to date" in trained.run("imageclf", "sync", "--all")
    assert {key: run.to_dictionary() for key, run in Store(trained).runs.items()} == {
        key: run.to_dictionary() for key, run in store.runs.items()
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_commits_and_experiments_come_back_without_a_journal(trained: Project) -> None:
    shutil.rmtree(trained.folder / ".imageclf")
    (trained.folder / "mlflow.db").unlink()
    before = trained.run("git", "status", "--porcelain")
    output = trained.run("imageclf", "sync", "--all")
    assert "0 runs in agreement, 3 brought up to date" in output
    assert trained.run("git", "status", "--porcelain") == before
    names = {rate: run.data.tags["DVC_EXP_NAME"] for rate, run in rates(trained).items()}
    assert names == {"0.1": "again", "0.02": "aside", "0.03": "queued"}
    for run in trained.runs():
        params = trained.run("git", "show", f"{whole(run.data.tags)['git_commit']}:params.yaml")
        assert f"learning_rate: {run.data.params['train.learning_rate']}" in params
        assert run.data.tags["restored_from_cache"] == "true"
        assert len(run.data.metrics) > len(SHOWN)
    assert "3 runs in agreement, 0 brought up to date" in trained.run("imageclf", "sync", "--all")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_no_cache_has_is_skipped_until_a_remote_brings_it(
    trained: Project, tmp_path: Path
) -> None:
    trained.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "remote"))
    trained.run("dvc", "push")
    lost = trained.md5s()["reports/metrics.json"]
    (trained.folder / ".dvc/cache/files/md5" / lost[:2] / lost[2:]).unlink()
    (tmp_path / "remote").rename(tmp_path / "elsewhere")
    (trained.folder / "mlflow.db").unlink()
    output = trained.run("imageclf", "sync", "--all")
    reason = "the workspace: DVC's cache and remotes lack reports/metrics.json"
    assert f"skipped: {reason}" in output
    assert "0 runs in agreement, 2 brought up to date, 1 skipped" in output
    (tmp_path / "elsewhere").rename(tmp_path / "remote")
    assert "2 runs in agreement, 1 brought up to date" in trained.run("imageclf", "sync", "--all")
