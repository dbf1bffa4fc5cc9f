"""Reports on made-up predictions."""

from typing import Any

import numpy as np

from helpers.classifiers import STATS, description
from helpers.images import learnable_split
from helpers.params import make_params
from imageclf.data.prepared import Split
from imageclf.evaluation.calibration import calibration_figures
from imageclf.evaluation.cost import Cost
from imageclf.evaluation.curves import reliability
from imageclf.evaluation.gallery import Rows
from imageclf.evaluation.metrics import Predictions, confusion_matrix, metrics
from imageclf.evaluation.report import look_inside
from imageclf.evaluation.report_page import Inside, Report
from imageclf.evaluation.verdict import Evidence
from imageclf.network.classifier import build_classifier

NAMES = ["<b>", "dog", "cat", "eel"]
HISTORY = [
    {"epoch": 1.0, "train_loss": 2.0, "val_loss": 2.0, "train_accuracy": 0.5, "val_accuracy": 0.5},
    {"epoch": 2.0, "train_loss": 1.0, "val_loss": 1.5, "train_accuracy": 0.5, "val_accuracy": 0.5},
]


def make_inside() -> Inside:
    """Of a small network with random weights."""
    params = make_params(augment__shift=1, transform__image_size=8)
    classifier = build_classifier(params.model, STATS, (8, 8, 1), 4)
    return look_inside(classifier, params, learnable_split(40, seed=0), NAMES)


def report_of(
    test: Split, predictions: Predictions, inside: Inside, names: list[str], **changes: Any
) -> Report:
    evidence = Evidence(
        metrics(predictions, test.labels, top_k=3) | calibration_figures(predictions, 1.0),
        description(class_names=names, epoch=2),
        HISTORY,
        confusion_matrix(predictions, len(names)),
        np.bincount(test.labels, minlength=len(names)),
        reliability(predictions),
        "none",
    )
    files = [f"test/{number}.png" for number in range(len(test))]
    values = {
        "rows": Rows(files, np.arange(len(test))),
        "cost": Cost(100, 200, 300),
        "pictures": 8,
        "seed": 1,
    }
    return Report(
        test=test, predictions=predictions, evidence=evidence, inside=inside, **values | changes
    )


def with_mistakes(labels: np.ndarray, wrong: list[int], classes: int) -> Predictions:
    """80 % for the label, but for the images in ``wrong`` for the class after it."""
    guessed = labels.copy()
    guessed[wrong] = (guessed[wrong] + 1) % classes
    return Predictions(np.eye(classes, dtype=np.float32)[guessed] * 0.8 + 0.2 / classes, labels)


def of_noise(inside: Inside, classes: int) -> Report:
    """Of 900 photographs that are hard to compress, whose probabilities are drawn at random."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (900, 112, 112, 3)).astype(np.uint8)
    labels = np.arange(900) % classes
    probabilities = generator.dirichlet(np.ones(classes), 900).astype(np.float32)
    names = [f"class {number}" for number in range(classes)]
    test = Split(images, labels)
    return report_of(test, Predictions(probabilities, labels), inside, names, pictures=24)
