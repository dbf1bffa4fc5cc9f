"""What the exported fashion_part4 says of Fashion-MNIST, and of what is none of it."""

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.metrics import roc_auc_score

from helpers.project import Project
from helpers.real_data import REAL_DATA, needs
from imageclf.data.prepared import Pixels
from imageclf.evaluation.calibration import expected_calibration_error
from imageclf.evaluation.metrics import Predictions
from imageclf.files import read_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    """The folder of a project that exported fashion_part4."""
    project = Project(tmp_path_factory.mktemp("fashion"))
    shutil.copy(migrated, project.folder)
    project.run("imageclf", "use", "fashion_part4")
    if "no source gave" in project.run("dvc", "repro", "embed", check=False):
        pytest.skip("Fashion-MNIST cannot be had")
    project.run("dvc", "repro", "export")
    return project.folder


@pytest.fixture(scope="module")
def session(fashion: Path) -> Any:
    return onnxruntime.InferenceSession(fashion / "models/exported/model.onnx")


@pytest.fixture(scope="module")
def garments(fashion: Path) -> Pixels:
    return np.load(fashion / "data/prepared/test.images.npy")


def test_the_exported_probabilities_are_calibrated(
    fashion: Path, session: Any, garments: Pixels
) -> None:
    labels = np.load(fashion / "data/prepared/test.labels.npy")
    told = read_json(fashion / "reports/metrics.json")
    found = Predictions(session.run(["probabilities"], {"images": garments})[0], labels)
    assert 1.3 < told["temperature"] < 2
    assert (found.predicted == labels).mean() == told["accuracy"] > 0.86
    assert expected_calibration_error(found) == pytest.approx(told["ece"], abs=2e-4)
    assert told["ece"] < told["uncalibrated_ece"] / 2
    assert told["loss"] < told["uncalibrated_loss"] - 0.03


@pytest.mark.parametrize(
    "what", [pytest.param("digits of MNIST", marks=needs("mnist")), "noise", "negatives"]
)
def test_what_is_no_garment_is_told_from_garments(
    session: Any, garments: Pixels, what: str
) -> None:
    if what == "noise":
        images = np.random.default_rng(0).integers(0, 256, garments.shape).astype(np.uint8)
    elif what == "negatives":
        images = 255 - garments
    else:
        content = gzip.decompress((REAL_DATA / "mnist/t10k-images-idx3-ubyte.gz").read_bytes())
        images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)
    known, unlike = (session.run(["novelty"], {"images": each})[0] for each in (garments, images))
    assert (known > 1).mean() < 0.02
    assert (unlike > 1).mean() > 0.1
    truth = np.repeat([0, 1], [len(known), len(unlike)])
    assert roc_auc_score(truth, np.concatenate([known, unlike])) >= 0.9
