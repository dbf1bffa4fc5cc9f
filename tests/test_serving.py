"""The registered model, used as anyone would who has MLflow and none of this project's code."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import requests

from helpers.params import make_params
from imageclf.files import sha256_file
from imageclf.tracking.gate import Candidate, Identity
from imageclf.tracking.messages import describe_run
from imageclf.tracking.registry import Model, register
from imageclf.tracking.runs import synchronise

IMAGES = np.random.default_rng(1).integers(0, 256, (5, 8, 8)).astype(np.uint8)
CLASS_NAMES = ["a", "b", "c", "d"]

pytestmark = pytest.mark.slow
Server = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def registered(project: Path, onnx_file: Path) -> str:
    """The address of a registered model."""
    fingerprint, digests = "f" * 64, {"train": "1" * 64, "val": "2" * 64, "test": "3" * 64}
    description = describe_run(make_params(), fingerprint, digests)
    run = synchronise(description, [], restored=False, ended=1)
    model = Model("digits", onnx_file, IMAGES[:2], CLASS_NAMES)
    identity = Identity(fingerprint, sha256_file(onnx_file), digests["test"])
    register(run, model, Candidate(identity, (True,), 0.9, 0.8, 0.1, True, ()))
    return "models:/digits@champion"


@pytest.fixture
def expected(onnx_file: Path) -> Any:
    """Probabilities (float32, N x classes) that onnxruntime gives for the images."""
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"images": IMAGES})
    assert len(np.unique(probabilities)) > len(IMAGES)
    return probabilities


def test_the_model_loads_as_a_function(registered: str, expected: Any) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(registered)
    assert model.metadata.metadata["class_names"] == CLASS_NAMES
    np.testing.assert_array_equal(model.predict(IMAGES)["probabilities"], expected)
    np.testing.assert_array_equal(model.predict(IMAGES[:1])["probabilities"], expected[:1])


def test_the_model_refuses_what_is_no_raw_image(registered: str) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(registered)
    with pytest.raises(mlflow.MlflowException, match="uint8"):
        model.predict(IMAGES.astype(np.float32) / 255)


def test_the_model_answers_over_http(
    registered: str,
    expected: Any,
    project: Path,
    mlflow_server: Server,
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    arguments = ["models", "serve", "--env-manager", "local", "--model-uri", registered]
    mlflow_server(free_port, *arguments, "--workers", "1")
    for count in (1, len(IMAGES)):
        answer = requests.post(
            f"http://127.0.0.1:{free_port}/invocations",
            data=json.dumps({"inputs": IMAGES[:count].tolist()}),
            headers={"Content-Type": "application/json"},
            timeout=30,
        )
        assert answer.ok, answer.text
        probabilities = np.array(answer.json()["predictions"]["probabilities"], np.float32)
        np.testing.assert_array_equal(probabilities, expected[:count])


def test_a_server_keeps_run_and_model_as_well(
    onnx_file: Path,
    expected: Any,
    project: Path,
    mlflow_server: Server,
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capfd: Any,
) -> None:
    import mlflow

    kept = project / "on the server"
    store = ["--backend-store-uri", f"sqlite:///{project}/mlflow.db"]
    mlflow_server(
        free_port, "server", *store, "--artifacts-destination", str(kept), "--workers", "1"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port}")
    capfd.readouterr()
    address = request.getfixturevalue("registered")
    assert capfd.readouterr() == ("", "")
    model = mlflow.pyfunc.load_model(address)
    np.testing.assert_array_equal(model.predict(IMAGES)["probabilities"], expected)
    (file,) = kept.rglob("model.onnx")
    assert file.read_bytes() == onnx_file.read_bytes()
    assert not (project / "mlartifacts").exists()
