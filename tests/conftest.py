"""A project folder with a tracking store of its own, a small model, and MLflow's own servers."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.clones import make_clones
from helpers.mlflow_server import start_mlflow, stop
from helpers.ports import unused_port

STORE = "mlflow.db"


def pytest_configure(config: pytest.Config) -> None:
    """What MLflow warns of in its own code is no warning about this project."""
    for its_own in (
        "ignore:The ``noload`` loader strategy:DeprecationWarning:mlflow",
        "ignore:.*Any type hint is inferred as AnyType:UserWarning",
    ):
        config.addinivalue_line("filterwarnings", its_own)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty tracking store; the migrations that make one take seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / STORE
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def project(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, without git and with an empty tracking store; no server is configured."""
    folder = tmp_path / "my project"
    folder.mkdir()
    shutil.copy(migrated, folder / STORE)
    for name in {"MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", *os.environ}:
        if name.startswith(("MLFLOW_", "DVC_")):
            monkeypatch.setenv(name, "")  # so that it is put back, also where it was not set
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def clones(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two clones of a repository, of which the first is the current folder."""
    found = make_clones(tmp_path, "one", "two")
    monkeypatch.chdir(found[0])
    return found


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear classifier of uint8 images of 8 x 8 into four classes, as the export stage's.

    The novelty of an image is its mean over 200.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(0, 0.001, (64, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["pixels"], ["rows"], axis=1),
            helper.make_node("MatMul", ["rows", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("ReduceMean", ["rows", "columns"], ["means"], keepdims=0),
            helper.make_node("Div", ["means", "bright"], ["novelty"]),
        ],
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["batch"]),
        ],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([1]), "columns"),
            numpy_helper.from_array(np.array(200, np.float32), "bright"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(
        model,
        {
            "class_names": json.dumps(["a", "b", "c", "d"]),
            "image_shape": "[8, 8]",
            "fit": "fill",
            "fingerprint": "f" * 64,
        },
    )
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


@pytest.fixture
def mlflow_server(project: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts ``mlflow ...`` on a port of loopback and waits until it answers."""
    started = []

    def start(port: int, *arguments: str) -> subprocess.Popen[bytes]:
        started.append(start_mlflow(project / "server.log", port, *arguments))
        return started[-1]

    yield start
    for process in started:
        stop(process)


@pytest.fixture
def free_port() -> int:
    return unused_port()
