from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.classifiers import STATS, description
from helpers.images import learnable_split
from helpers.params import make_params
from imageclf.evaluation.metrics import Predictions, metrics
from imageclf.evaluation.report import draw_training, warnings, write_report
from imageclf.files import read_json
from imageclf.network.classifier import build_classifier
from imageclf.project.folder import WARNINGS


@pytest.fixture
def parts() -> dict:
    test = learnable_split(40, seed=0)
    probabilities = np.eye(4, dtype=np.float32)[test.labels] * 0.8 + 0.05
    predictions = Predictions(probabilities, test.labels)
    history = pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.0], "val_loss": [2.0, 1.5]})
    history[["train_accuracy", "val_accuracy"]] = 0.5
    return {
        "test": test,
        "predictions": predictions,
        "figures": metrics(predictions, test.labels, top_k=3),
        "description": description(class_names=["<b>", "dog", "cat", "eel"]),
        "history": history,
        "warned": [],
    }


def test_the_page_shows_figures_pictures_and_escapes_names(tmp_path: Path, parts: dict) -> None:
    write_report(tmp_path, **parts, pictures=8)
    page = (tmp_path / "index.html").read_text()
    assert "<b>100.00%</b>accuracy" in page
    assert "&lt;b&gt;" in page
    for name in ("loss.png", "confusion.png", "mistakes.png"):
        assert f'src="{name}"' in page
        assert (tmp_path / name).stat().st_size > 1000
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == 40
    assert pd.read_csv(tmp_path / "per_class.csv")["support"].tolist() == [10] * 4


def test_no_class_name_is_a_formula_in_the_tables(tmp_path: Path, parts: dict) -> None:
    names = ["=1+1", "@dog", "-5", "eel"]
    parts["description"] = description(class_names=names)
    write_report(tmp_path, **parts, pictures=8)
    for name, column in (("predictions", "actual"), ("predictions", "predicted")):
        table = pd.read_csv(tmp_path / f"{name}.csv", dtype=str)
        assert {*table[column]} == {"'=1+1", "'@dog", "-5", "eel"}
    per_class = pd.read_csv(tmp_path / "per_class.csv", dtype=str)
    assert per_class["class"].tolist() == ["'=1+1", "'@dog", "-5", "eel"]


def test_fewer_test_images_than_pictures_are_no_problem(tmp_path: Path, parts: dict) -> None:
    write_report(tmp_path, **parts, pictures=100)
    assert (tmp_path / "mistakes.png").exists()


def test_a_model_at_chance_level_is_called_so() -> None:
    figures = {"accuracy": 0.52, "accuracy_low": 0.46, "majority_accuracy": 0.5}
    (warning,) = warnings(figures, description(), 40)
    assert "not clearly better than always guessing" in warning
    assert not [*warnings(figures | {"accuracy_low": 0.51}, description(), 40)]


COLOUR = {"image_shape": [64, 64, 3], "mean": [0.4] * 3, "std": [0.2] * 3}


@pytest.mark.parametrize(
    ("changes", "train_images", "told"),
    [
        (COLOUR, 1999, True),
        (COLOUR, 2000, False),
        ({}, 1999, False),  # grey, as MNIST is
        (COLOUR | {"weights": {"title": "ImageNet's", "sha256": "a" * 64}}, 1999, False),
    ],
)
def test_few_photographs_without_a_pretrained_backbone_are_told(
    changes: dict, train_images: int, told: bool
) -> None:
    figures = {"accuracy": 0.52, "accuracy_low": 0.51, "majority_accuracy": 0.5}
    found = [*warnings(figures, description(**changes), train_images)]
    assert len(found) == told
    assert all("1,999 photographs" in each and "imageclf use my_photos" in each for each in found)


def test_warnings_are_on_the_page_and_in_a_file(tmp_path: Path, parts: dict) -> None:
    write_report(tmp_path, **parts | {"warned": ["few <images>"]}, pictures=8)
    assert "few &lt;images&gt;</p>" in (tmp_path / "index.html").read_text()
    assert read_json(tmp_path / WARNINGS.name) == ["few <images>"]


def test_what_the_network_saw_and_became_is_drawn(tmp_path: Path) -> None:
    params = make_params(augment__shift=1, transform__image_size=8)
    train = learnable_split(40, seed=0)
    classifier = build_classifier(params.model, STATS, (8, 8, 1), 4)
    draw_training(tmp_path, classifier, params, train, [*"abcd"])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("first_batch.png", "filters.png", "weights.png")
    }
