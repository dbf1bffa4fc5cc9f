"""What a model was made from can be said, and it can be made again, from a dirty tree too."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.project import STAGES, Project, md5s
from imageclf.files import read_yaml, sha256_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHANGED = {"params.yaml", "src/imageclf/network/initialization.py"}
RECIPE = "recipes/mine.yaml"
# What the change of the source does shows in the weights: without it, xavier_normal is the same.
DRAWN = "nn.init.xavier_normal_(weight)"


@pytest.fixture(scope="module")
def queued(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Project:
    """Two versions from a tree that is not committed: of a queued experiment, of `dvc repro`."""
    project = Project(tmp_path_factory.mktemp("lineage") / "project")
    shutil.copy(migrated, project.folder)
    project.set("model.init", "xavier_normal")
    source = project.folder / "src/imageclf/network/initialization.py"
    source.write_text(source.read_text().replace(DRAWN, f"{DRAWN[:-1]}, gain=0.5)"))
    (project.folder / RECIPE).write_text("# Mine\nmodel:\n  init: xavier_normal\n")
    rate = ("-S", "train.learning_rate=0.005")
    project.run("dvc", "exp", "run", "--queue", "--name", "slower", *rate)
    project.run("dvc", "queue", "start")
    project.run("dvc", "queue", "logs", "slower", "--follow")
    assert "Success" in project.run("dvc", "queue", "status")
    project.repro()
    return project


def state(project: Project) -> tuple[str, dict[Path, int]]:
    """What a rebuild may not touch: the tracking store, and every file of the cache."""
    cached = (project.folder / ".dvc/cache").rglob("*")
    return (
        sha256_file(project.folder / "mlflow.db"),
        {path: path.stat().st_mtime_ns for path in cached if path.is_file()},
    )


def traced(project: Project, what: str | Path) -> Any:
    return json.loads(project.run("imageclf", "trace", str(what), "--json"))


def test_a_version_from_a_queue_and_a_dirty_tree_tells_all(queued: Project) -> None:
    found = traced(queued, "models:/digits/1")
    (unknown,) = found["unknown"]
    assert "there is no default remote" in unknown
    assert found["versions"][0]["name"] == "digits"
    assert found["tags"]["git_commit"] == queued.run("git", "rev-parse", "HEAD").strip()
    assert found["commit_subject"] == "start"
    assert set(found["changed_files"]) == CHANGED  # git did not know the recipe, so DVC left it
    assert found["tags"]["DVC_EXP_NAME"] == "slower"
    assert found["params"]["train.learning_rate"] == 0.005
    assert {"train.learning_rate", "model.init", "data.name"} <= set(found["differing_params"])
    assert found["metrics"]["test_accuracy"] > 0.9
    assert {out["stage"] for out in found["outs"]} == {*STAGES} - {"register"}
    assert all(out["in_cache"] and out["on_remote"] is None for out in found["outs"])
    for what in (found["run"]["id"], found["fingerprint"], found["fingerprint"][:8]):
        assert traced(queued, what) == found | {"what": what}


def test_what_git_does_not_know_belongs_to_a_training_in_the_workspace(queued: Project) -> None:
    found = traced(queued, "models/exported/model.onnx")
    assert [version["number"] for version in found["versions"]] == ["2"]
    assert set(found["changed_files"]) == CHANGED | {RECIPE}


@pytest.mark.parametrize(
    ("number", "options", "made"),
    [
        (1, (), {"models/classifier", "reports/history.csv"}),
        (2, ("--from-scratch",), None),
        (1, ("--keep-model",), set()),
    ],
    ids=["training", "scratch", "nothing"],
)
def test_a_version_is_rebuilt_byte_by_byte(
    queued: Project, number: int, options: tuple[str, ...], made: set[str] | None, tmp_path: Path
) -> None:
    before, folder = state(queued), tmp_path / "again"
    version = f"models:/digits/{number}"
    output = queued.run("imageclf", "rebuild", version, str(folder), "--yes", *options)
    found = traced(queued, version)
    paths = {out["path"] for out in found["outs"]}
    made = paths - {"data/raw", "models/pretrained"} if made is None else made
    said = f"the same: all {len(paths)} md5s agree; {len(made)} of these outs were made again"
    assert said in output
    lines = {line.split()[0]: line for line in output.splitlines() if line.split()[:1]}
    for path in paths:
        proof = "made again, equal" if path in made else "restored, hash checked"
        assert lines[path].endswith(proof)
    assert md5s(folder) == {out["path"]: out["md5"] for out in found["outs"]}
    rate = read_yaml(folder / "params.yaml")["train"]["learning_rate"]
    assert rate == found["params"]["train.learning_rate"]
    assert (folder / RECIPE).exists() == (number == 2)
    assert state(queued) == before


def test_a_training_that_draws_from_chance_is_not_the_same(queued: Project, tmp_path: Path) -> None:
    source = queued.folder / "src/imageclf/network/initialization.py"
    source.write_text(
        source.read_text().replace(
            "    for layer in", "    import torch\n\n    torch.seed()\n    for layer in"
        )
    )
    queued.repro()
    folder = tmp_path / "again"
    command = ("imageclf", "rebuild", "models/classifier", str(folder), "--yes", "--from-scratch")
    output = queued.run(*command, check=False)
    assert "not the same: though the machine is the same; test accuracy 0.9" in output
    differing = {line.split()[0] for line in output.splitlines() if "DIFFERENT" in line}
    assert {"models/classifier", "models/exported", "reports/history.csv"} <= differing
    assert differing.isdisjoint({"data/raw", "data/prepared", "reports/data.json"})
    assert "different: models/classifier/model.safetensors" in output.splitlines()
