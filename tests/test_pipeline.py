"""The real pipeline, run by DVC on the built-in digits in a copy of the project."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import requests

from helpers.observers import GUARDS, NOTHING, OBSERVERS
from helpers.project import STAGES, Project, kill, working_on
from imageclf.files import read_json, read_yaml

# Of the stages' scripts, alone on two cores; with little to do, most of it is spent on imports.
LASTS_S = {
    "fetch": 1.8,
    "transform": 0.7,
    "weights": 0.2,
    "embed": 0.2,
    "train": 2.2,
    "evaluate": 3.1,
    "export": 4.0,
    "register": 1.8,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that ran once."""
    project = Project(tmp_path_factory.mktemp("project"))
    assert project.repro() == [*STAGES]
    return project


def test_it_learns_digits_and_registers_the_model(project: Project) -> None:
    metrics = read_json(project.folder / "reports/metrics.json")
    assert metrics["accuracy"] >= 0.95
    assert metrics["images"] == 359
    (run,) = project.runs()
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/accuracy"] == metrics["accuracy"]
    model = read_json(project.folder / "models/classifier/model.json")
    assert run.data.tags["fingerprint"] == model["fingerprint"]


def test_nothing_runs_a_second_time(project: Project) -> None:
    assert project.repro() == []


@pytest.mark.parametrize(("path", "value"), [("runtime.device", "cpu"), ("runtime.threads", "2")])
def test_where_it_runs_is_not_what_it_is(project: Project, path: str, value: str) -> None:
    before = (project.folder / "params.yaml").read_text()
    project.set(path, value)
    assert (project.folder / "params.yaml").read_text() != before
    assert project.repro() == []


def test_what_observes_a_training_only_watches_it(project: Project, tmp_path: Path) -> None:
    alone = project.copy(tmp_path / "alone")
    shutil.rmtree(alone.folder / ".imageclf")
    for name in GUARDS | OBSERVERS:
        (alone.folder / f"src/imageclf/{name}.py").write_text(NOTHING)
    assert alone.run("dvc", "status", "train") == "Data and pipelines are up to date.\n"
    assert alone.repro("--force", "--single-item", "train") == ["train"]
    assert not (alone.folder / ".imageclf").exists()
    assert alone.md5s() == project.md5s()


@pytest.mark.slow
def test_changing_a_parameter_and_back_restores_and_leaves_two_runs(project: Project) -> None:
    rate = read_yaml(project.folder / "params.yaml")["train"]["learning_rate"]
    before = project.md5s()
    project.set("train.learning_rate", "0.02")
    assert project.repro() == ["train", "evaluate", "export", "register"]
    project.set("train.learning_rate", str(rate))
    assert project.repro() == ["register"]
    assert project.md5s() == before
    runs = project.runs()
    rates = {run.data.params["train.learning_rate"] for run in runs}
    assert (len(runs), len(rates)) == (2, 2)
    assert project.repro() == []


def test_a_wrong_parameter_stops_before_any_work(project: Project) -> None:
    before = (project.folder / "params.yaml").read_text()
    project.set("train.epochs", "-1")
    output = project.run("dvc", "repro", check=False)
    (project.folder / "params.yaml").write_text(before)
    assert "error: params.yaml: train.epochs: input should be greater than 0, not -1" in output
    assert "Traceback" not in output
    assert project.repro() == []


def test_dvc_shows_metrics_and_plots(project: Project) -> None:
    assert "accuracy" in project.run("dvc", "metrics", "show")
    project.run("dvc", "plots", "show", "--out", "plots")
    page = (project.folder / "plots/index.html").read_text()
    assert all(title in page for title in ("Loss by epoch", "Confusion", "mistakes.png"))


TEN_LINES = """
import json
import numpy, onnxruntime

images = numpy.load("data/prepared/test.images.npy")
labels = numpy.load("data/prepared/test.labels.npy")
session = onnxruntime.InferenceSession("models/exported/model.onnx")
probabilities = session.run(None, {"images": images})[0]
accuracy = (probabilities.argmax(axis=1) == labels).mean()
print(json.dumps({"accuracy": accuracy}))
"""


def test_ten_lines_that_know_nothing_of_imageclf_reach_the_same_accuracy(project: Project) -> None:
    output = project.run("python", "-I", "-c", TEN_LINES)
    metrics = read_json(project.folder / "reports/metrics.json")
    assert json.loads(output)["accuracy"] == metrics["accuracy"]


@pytest.mark.slow
def test_the_champion_served_over_http_reaches_the_same_accuracy(project: Project) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["mlflow", "models", "serve", "--env-manager", "local", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--model-uri", "models:/digits@champion"],
        cwd=project.folder,
        env=project.environment | {"MLFLOW_TRACKING_URI": f"sqlite:///{project.folder}/mlflow.db"},
        start_new_session=True,
    )
    try:
        wait_for(lambda: requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).ok)
        images = np.load(project.folder / "data/prepared/test.images.npy")
        labels = np.load(project.folder / "data/prepared/test.labels.npy")
        answer = requests.post(
            f"http://127.0.0.1:{port}/invocations", json={"inputs": images.tolist()}, timeout=60
        )
        answer.raise_for_status()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    probabilities = np.array(answer.json()["predictions"]["probabilities"])
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    assert accuracy == read_json(project.folder / "reports/metrics.json")["accuracy"]


def wait_for(ready: Callable[[], bool]) -> None:
    """Until a server answers, a minute at most."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(requests.ConnectionError):
            if ready():
                return
        time.sleep(0.2)
    pytest.fail("the server did not answer within a minute")


@pytest.mark.slow
def test_images_in_shards_go_the_whole_way(tmp_path: Path, migrated: Path) -> None:
    """The limit on packed pixels so low that even digits are kept as JPEG."""
    project = Project(tmp_path)
    shutil.copy(migrated, tmp_path)
    project.set("transform.packed_limit_gb", "0.00001")
    assert project.repro() == [*STAGES]
    prepared = project.folder / "data/prepared"
    assert np.load(prepared / "train.images.npy").shape == (0, 8, 8)
    metrics = read_json(project.folder / "reports/metrics.json")
    assert (metrics["accuracy"] > 0.9, metrics["images"]) == (True, 359)
    assert read_json(project.folder / "models/exported/parity.json")["agree"]
    (run,) = project.runs()
    assert run.data.metrics["test/accuracy"] == metrics["accuracy"]
    project.run("imageclf", "show", "--output", "seen.png")
    before = project.md5s()
    assert project.repro() == []
    # Decoded by workers again, the same bytes.
    assert project.repro("--force", "--single-item", "train") == ["train"]
    assert project.md5s() == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_another_folder_gives_the_same_bytes_also_after_kills(
    project: Project, tmp_path: Path
) -> None:
    other = Project(tmp_path)
    for stage in STAGES:
        kill_during(other, stage)
    other.repro()
    assert other.md5s() == project.md5s()
    assert [run.info.status for run in other.runs()] == ["FINISHED"]
    leftovers = [path for path in other.folder.rglob("*.tmp") if ".dvc" not in path.parts]
    assert leftovers == []


def kill_during(project: Project, stage: str) -> None:
    """Start `dvc repro`, and kill -9 all of it while the stage's script is at work.

    Not later: DVC writes dvc.lock in place, and a kill in that moment leaves it torn.
    """
    process = project.start("dvc", "repro")
    deadline = time.monotonic() + 120
    while not working_on(project, stage):
        assert process.poll() is None, f"dvc ended before {stage} was seen"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(LASTS_S[stage] / 3)
    kill(process)
