"""Transfer learning by `dvc repro`: what a change runs again, and that all of it fits together."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.params import ROOT, changed
from helpers.project import STAGES, Project
from imageclf.files import read_json, sha256_file
from imageclf.network.classifier import load_classifier

AFTER_TRAINING = ["train", "evaluate", "export", "register"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Project:
    """Its first model, of the digits, is registered; the next one begins with it, frozen."""
    project = Project(tmp_path_factory.mktemp("project"))
    shutil.copy(migrated, project.folder)
    project.set("train.epochs", "5")
    assert project.repro() == [*STAGES]
    project.set("model.weights", "models:/digits@champion")
    project.set("model.freeze", "backbone")
    project.set("register.name", "next")
    assert project.repro() == ["weights", "embed", *AFTER_TRAINING]
    return project


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_head_costs_a_training_a_backbone_no_decoding(project: Project) -> None:
    before = project.md5s()
    project.set("model.head", "[16]")
    assert project.repro() == AFTER_TRAINING
    project.set("train.learning_rate", "0.01")
    assert project.repro("train") == ["train"]
    project.set("model.weights", "models:/next/1")  # whose backbone is that of digits/1
    assert project.repro("train") == ["weights", "embed", "train"]
    after = project.md5s()
    assert after["data/features"] == before["data/features"]
    project.set("model.weights", "none")
    project.set("model.freeze", "none")
    project.set("model.hidden", "[32]")
    project.set("register.name", "small")
    assert project.repro() == AFTER_TRAINING  # what the others write then is in DVC's cache
    project.set("model.weights", "models:/small/1")
    project.set("model.freeze", "backbone")
    assert project.repro("train") == ["weights", "embed", "train"]
    assert project.md5s()["data/prepared"] == before["data/prepared"]
    project.set("model.hidden", "[128, 64]")
    output = project.run("dvc", "repro", check=False)
    assert "error: model.hidden is [128, 64], but model.weights are" in output
    assert "Traceback" not in output


UNWANTED = """
import runpy, sys

sys.argv = ["stage.py"]
try:
    runpy.run_path(f"{sys.path[1]}/STAGE.py", run_name="__main__")
except SystemExit:
    print(sorted({"torch", "mlflow"} & set(sys.modules)))
"""


@pytest.mark.parametrize("stage", ["weights", "embed"])
def test_a_stage_that_is_not_wanted_costs_next_to_nothing(tmp_path: Path, stage: str) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps(changed()))
    done = subprocess.run(
        [sys.executable, "-c", UNWANTED.replace("STAGE", stage)],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}/stages:{ROOT}/src"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("[]\n")
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "params.yaml"]
    assert len(files) == 3
    assert all(file.stat().st_size < 200 for file in files)


def prepared(folder: Path, weights: Path) -> Project:
    """The digits, for a head on one of torchvision's networks."""
    project = Project(folder)
    for path, value in {
        "transform.image_size": "32",
        "transform.channels": "3",
        "model.name": "shufflenet_v2_x0_5",
        "model.weights": str(weights),
        "model.freeze": "backbone",
        "model.head": "[16]",
        "model.dropout": "0.2",
        "train.epochs": "2",
    }.items():
        project.set(path, value)
    run(project, "fetch", "weights", "transform")
    return project


def run(project: Project, *stages: str) -> None:
    for stage in stages:
        project.run("env", "PYTHONPATH=src", sys.executable, f"stages/{stage}.py")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_a_head_learnt_on_features_is_a_whole_network(tmp_path: Path, migrated: Path) -> None:
    from torchvision.models import get_model

    torch.manual_seed(1)
    network = get_model("shufflenet_v2_x0_5")
    for _ in range(20):  # or its batch norm would let next to nothing through
        network(torch.randn(64, 3, 32, 32))
    torch.save(network.state_dict(), tmp_path / "some.pth")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "some.pth", tmp_path / "elsewhere")
    first = prepared(tmp_path / "one", tmp_path / "some.pth")
    second = first.copy(tmp_path / "two")
    second.set("model.weights", str(tmp_path / "elsewhere/some.pth"))
    run(first, "embed", "train", "evaluate")
    run(second, "weights", "embed", "train")
    one, two = first.folder, second.folder
    for path in ("data/features", "models/pretrained", "models/classifier", "reports/history.csv"):
        files = [one / path] if path.endswith("csv") else sorted((one / path).iterdir())
        for file in files:
            assert sha256_file(file) == sha256_file(two / file.relative_to(one)), file

    classifier, description = load_classifier(one / "models/classifier")
    assert description.weights["title"] == "some.pth"
    features = torch.tensor(np.load(one / "data/features/val.npy"))
    assert features.std(dim=0).max() > 1e-3
    output = {}
    near = {"atol": 1e-3, "rtol": 0.0}  # ONNX Runtime's, see inference/backbone.py
    with torch.no_grad():
        for split in ("val", "test"):
            images = torch.tensor(np.load(one / f"data/prepared/{split}.images.npy"))
            output[split] = classifier(images)
            if split == "val":
                torch.testing.assert_close(classifier.features(images), features, **near)
        torch.testing.assert_close(classifier.network.head(features), output["val"], **near)
    labels = {split: np.load(one / f"data/prepared/{split}.labels.npy") for split in output}
    accuracy = {
        split: (output[split].argmax(dim=1).numpy() == labels[split]).mean() for split in output
    }
    history = (one / "reports/history.csv").read_text().splitlines()
    assert float(history[-1].split(",")[-1]) == pytest.approx(accuracy["val"], abs=0.011)
    figures = read_json(one / "reports/metrics.json")
    assert figures["accuracy"] == pytest.approx(accuracy["test"], abs=0.011)
