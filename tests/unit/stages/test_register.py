import json
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from helpers.classifiers import description
from helpers.descriptions import DIGESTS, FINGERPRINT, described
from helpers.files import flip
from helpers.params import params_text
from helpers.tracked import FinishedTraining
from imageclf.files import sha256_file, write_text
from imageclf.project.lock import md5_of
from imageclf.tracking.journal import LATEST, Journal
from imageclf.tracking.messages import End, Metrics
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.tags import SNAPSHOT
from imageclf.training.history import MEASURED
from register import main


@pytest.fixture
def files(project: Path, onnx_file: Path) -> FinishedTraining:
    return FinishedTraining(project, onnx_file)


OTHER = "e" * 64


def write_json(path: str, value: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value))


def write_files(files: FinishedTraining, fingerprint: str = FINGERPRINT) -> None:
    """What the other stages leave of a finished training."""
    Path("params.yaml").write_text(params_text())
    figures = {"accuracy": 0.9, "accuracy_low": 0.8, "majority_accuracy": 0.1}
    description(
        fingerprint=fingerprint,
        class_names=["a", "b", "c", "d"],
        image_shape=[8, 8],
        weights={"sha256": "5" * 64},
    ).write(Path("models/classifier"))
    parity = {"agree": True, "sha256": {"model.onnx": sha256_file(files.onnx)}}
    write_json("models/exported/parity.json", parity)
    write_json("reports/metrics.json", figures)
    images = {"train": 30, "val": 5, "test": 10}
    write_json("reports/data.json", {"images": images, "leaks": []})
    write_text(Path("reports/data.html"), "<title>The data</title>\n")
    write_text(
        Path("reports/evaluation/predictions.csv"),
        "actual,predicted,probability,loss\na,a,0.9,0.1\n",
    )
    write_json("data/prepared/digests.json", DIGESTS)
    shutil.copy(files.onnx, "models/exported/model.onnx")
    np.save("data/prepared/test.images.npy", np.zeros((10, 8, 8), np.uint8))
    np.save("data/prepared/test.labels.npy", np.zeros(10, np.int64))
    columns = ",".join(["epoch", *MEASURED])
    Path("reports/history.csv").write_text(f"{columns}\n1,1,0.5,1,1,1\n2,1,0.25,1,1,1\n")


def run_stage(files: FinishedTraining) -> Result:
    write_files(files)
    return CliRunner().invoke(main)


def test_the_register_stage_tells_mlflow_what_the_files_say(files: FinishedTraining) -> None:
    result = run_stage(files)
    assert result.output.splitlines() == [
        "run: mlp lr 0.003 · 90.0 % (restored from a cache)",
        "model: fashion-mnist version 1, challenger and champion",
        "champion: promoted: there was no champion; "
        "100.0 % of 1 test images (13.1 to 100.0 % with 99 % confidence)",
        "compare the runs: make ui",
    ]
    (run,) = files.runs()
    assert [(step, value) for step, value, _ in files.history("train/loss")] == [
        (1, 0.5),
        (2, 0.25),
    ]
    assert run.data.metrics["test/majority_accuracy"] == 0.1
    assert run.data.tags["restored_from_cache"] == "true"
    assert run.data.tags["weights.sha256"] == "5" * 12
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("mlp on fashion_mnist: ")
    assert "always guessing the commonest class has 10.0 %" in note
    assert len(run.inputs.dataset_inputs) == 3
    artifacts = {artifact.path for artifact in files.client.list_artifacts(run.info.run_id)}
    assert artifacts == {"models", "params.yaml", "reports"}
    models = {each.path for each in files.client.list_artifacts(run.info.run_id, "models")}
    assert models == {"models/classifier", "models/exported"}


def pages(files: FinishedTraining) -> dict[str, str]:
    """The page that compares the model with the champion, by the fingerprint of the run."""
    found = {}
    for run in files.runs():
        listed = files.client.list_artifacts(run.info.run_id, "reports")
        if "reports/compare.html" in {each.path for each in listed}:
            page = files.client.download_artifacts(run.info.run_id, "reports/compare.html")
            found[run.data.params["train.epochs"]] = Path(page).read_text()
    return found


def test_a_second_model_comes_with_its_comparison_with_the_champion(
    files: FinishedTraining,
) -> None:
    assert run_stage(files).exit_code == 0
    assert pages(files) == {}
    write_files(files, OTHER)
    Path("params.yaml").write_text(params_text().replace("epochs: 20", "epochs: 3"))
    assert CliRunner().invoke(main).exit_code == 0
    ((epochs, page),) = pages(files).items()
    assert epochs == "3"
    assert "<h1>Fashion-mnist 2 against fashion-mnist 1 (champion)</h1>" in page
    assert "<td>train.epochs</td><td>3</td><td>20</td>" in page


def test_predictions_of_an_earlier_version_hinder_no_registration(
    files: FinishedTraining,
) -> None:
    assert run_stage(files).exit_code == 0
    (run,) = files.runs()
    kept = Path("predictions.csv")
    kept.write_text("actual,predicted\na,a\n")
    files.client.log_artifact(run.info.run_id, str(kept), "reports/evaluation")
    write_files(files, OTHER)
    result = CliRunner().invoke(main)
    assert result.exit_code == 0, result.output
    assert "model: fashion-mnist version 2, challenger" in result.output
    assert "not compared with the champion: " in result.stderr
    assert "it has no column loss" in result.stderr
    assert pages(files) == {}


@pytest.mark.parametrize(
    "path",
    [
        "reports/history.csv",
        "reports/data.html",
        "reports/evaluation/predictions.csv",
        "data/prepared/test.images.npy",
        "models/exported/parity.json",
    ],
)
def test_the_register_stage_names_a_file_that_is_missing(
    files: FinishedTraining, path: str
) -> None:
    write_files(files)
    Path(path).unlink()
    result = CliRunner().invoke(main)
    assert result.exit_code == 2
    assert result.output == f"error: {path} is missing: run `dvc repro` to make it\n"
    assert files.runs() == []


def test_the_register_stage_fills_the_gap_of_a_training_in_this_folder(
    files: FinishedTraining,
) -> None:
    description = replace(described(), origin=Provenance(device="x"), started=500)
    with Journal(FINGERPRINT).training(description, 0):
        Journal(FINGERPRINT).say(Metrics(1, {"train_loss": 0.5, "seconds": 3.5}, 700))
        Journal(FINGERPRINT).say(End("FINISHED", 900))
    write_text(LATEST, FINGERPRINT)
    assert "restored" not in run_stage(files).output
    (run,) = files.runs()
    assert run.data.tags["device"] == "x"
    assert "restored_from_cache" not in run.data.tags
    assert run.info.start_time == 500
    assert files.history("time/seconds") == [(1, 3.5, 700)]
    assert next(time for _, _, time in files.history("train/loss")) == 700


@pytest.mark.parametrize("path", ["models/classifier/model.safetensors", "reports/metrics.json"])
def test_the_register_stage_refuses_what_is_not_its_md5(files: FinishedTraining, path: str) -> None:
    write_files(files)
    write_text(Path("models/classifier/model.safetensors"), "weights")
    outs = ["models/classifier", "reports/metrics.json"]
    recorded = [{"path": out, "md5": md5_of(Path(out))} for out in outs]
    write_json("dvc.lock", {"stages": {"train": {"cmd": "true", "outs": recorded}}})
    assert CliRunner().invoke(main).exit_code == 0
    count = len(files.client.search_model_versions())
    flip(Path(path))
    result = CliRunner().invoke(main)
    out = next(out for out in outs if path.startswith(out))
    assert result.exit_code == 2
    assert result.output.startswith(f"error: {out} is not what dvc.lock records: `imageclf verify`")
    assert len(files.client.search_model_versions()) == count


@pytest.mark.slow
def test_the_register_stage_does_not_wait_long(
    files: FinishedTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://me:secret@127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        result = run_stage(files)
    assert time.monotonic() - started < 30
    assert result.exit_code == 2
    place = address.replace("me:secret@", "")
    assert result.output == f"error: the tracking server {place} does not answer (timed out)\n"


def test_the_snapshot_is_a_tag_only_when_all_agrees(files: FinishedTraining) -> None:
    write_files(files)
    write_text(Path("dvc.lock"), "stages: {}\n")
    Path("models/exported/model.onnx").write_bytes(b"no model")
    assert "Error parsing message" in str(CliRunner().invoke(main).exception)
    assert SNAPSHOT not in files.runs()[0].data.tags
    assert run_stage(files).exit_code == 0
    assert SNAPSHOT in files.runs()[0].data.tags
