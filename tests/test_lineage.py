"""What a model was made from can be said, and it can be made again, from a dirty tree too."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from imageclf.files import sha256_file
from imageclf.params import read_yaml
from project import STAGES, Project, md5s

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHANGED = {"params.yaml", "recipes/mine.yaml", "src/imageclf/initialization.py"}
# What the change of the source does shows in the weights: without it, xavier_normal is the same.
DRAWN = "nn.init.xavier_normal_(weight)"


@pytest.fixture(scope="module")
def queued(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Project:
    """A version that a queued experiment registered, from parameters and sources not committed."""
    project = Project(tmp_path_factory.mktemp("lineage") / "project")
    shutil.copy(migrated, project.folder)
    project.set("model.init", "xavier_normal")
    source = project.folder / "src/imageclf/initialization.py"
    source.write_text(source.read_text().replace(DRAWN, f"{DRAWN[:-1]}, gain=0.5)"))
    (project.folder / "recipes/mine.yaml").write_text("# Mine\nmodel:\n  init: xavier_normal\n")
    rate = ("-S", "train.learning_rate=0.005")
    project.run("dvc", "exp", "run", "--queue", "--name", "slower", *rate)
    project.run("dvc", "queue", "start")
    project.run("dvc", "queue", "logs", "slower", "--follow")
    assert "Success" in project.run("dvc", "queue", "status")
    return project


def traced(project: Project, what: str | Path) -> Any:
    return json.loads(project.run("imageclf", "trace", str(what), "--json"))


def test_a_version_from_a_queue_and_a_dirty_tree_tells_all(queued: Project) -> None:
    found = traced(queued, "models:/digits@champion")
    assert found["unknown"] == ["x"]
    assert found["versions"][0]["aliases"] == ["challenger", "champion"]
    assert found["tags"]["git_commit"] == queued.run("git", "rev-parse", "HEAD").strip()
    assert found["commit_subject"] == "start"
    assert set(found["changed_files"]) == CHANGED
    assert found["tags"]["DVC_EXP_NAME"] == "slower"
    assert found["params"]["train.learning_rate"] == 0.005
    assert {"train.learning_rate", "model.init", "data.name"} <= set(found["differing_params"])
    assert found["metrics"]["test_accuracy"] > 0.9
    assert {out["stage"] for out in found["outs"]} == {*STAGES} - {"register"}
    assert all(out["in_cache"] and out["on_remote"] is None for out in found["outs"])
    for what in (found["run"]["id"], found["fingerprint"], found["fingerprint"][:8]):
        assert traced(queued, what) == found | {"what": what}


@pytest.mark.parametrize("options", [(), ("--from-scratch",)])
def test_it_is_rebuilt_byte_by_byte(
    queued: Project, options: tuple[str, ...], tmp_path: Path
) -> None:
    store = sha256_file(queued.folder / "mlflow.db")
    folder = tmp_path / "again"
    output = queued.run("imageclf", "rebuild", "models:/digits/1", str(folder), *options)
    found = traced(queued, "models:/digits/1")
    rebuilt = md5s(folder)
    assert rebuilt == {out["path"]: out["md5"] for out in found["outs"]}
    made = 8 if options else 0
    assert f"the same: all 8 md5s agree; {made} of these outs were made again" in output
    assert sha256_file(queued.folder / "mlflow.db") == store
    assert read_yaml(folder / "params.yaml")["train"]["learning_rate"] == 0.005
