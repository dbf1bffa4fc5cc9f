"""Two models of scikit-learn's digits, and answers made by hand where the numbers must be known."""

from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imageclf.data.prepared import split_digest
from imageclf.evaluation.comparison import (
    Answers,
    Contender,
    calibration_error,
    compare,
    read_answers,
    reliability,
    verdict,
)
from imageclf.evaluation.comparison_page import SHOWN, chosen, render_comparison
from imageclf.files import UserError, write_json
from imageclf.intervals import wilson
from imageclf.tracking.gate import mcnemar


def answers(actual: str, predicted: str, confidence: float = 0.9) -> Answers:
    """One letter for the class of each image."""
    count = len(actual)
    return Answers(
        np.array(list(actual)),
        np.array(list(predicted)),
        np.full(count, confidence),
        np.linspace(0, 1, count),
    )


def contender(title: str, given: Answers | None, **params: Any) -> Contender:
    figures = {"accuracy": float(given.right.mean()), "images": len(given)} if given else {}
    return Contender(title, title * 8, params, figures, "1" * 64, given)


def pair(first: str, second: str, actual: str) -> tuple[Contender, Contender]:
    return contender("x", answers(actual, first)), contender("y", answers(actual, second))


def test_images_that_only_one_has_right_are_told_apart() -> None:
    compared = compare(*pair(first="aabbcc", second="abbbca", actual="aabbca"))
    assert compared.paired
    assert [only.tolist() for only in compared.paired.only] == [[1], [5]]
    assert (compared.paired.both, compared.paired.neither) == (4, 0)
    assert compared.paired.p == mcnemar(1, 1)
    rows = {row.name: (row.images, row.right, row.only) for row in compared.paired.classes}
    assert rows == {"a": (3, (2, 2), (1, 1)), "b": (2, (2, 2), (0, 0)), "c": (1, (1, 1), (0, 0))}


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("a" * 20, "b" * 20, "x is better than y: where they differ, x is right 20 to 0 times"),
        ("b" * 20, "a" * 20, "y is better than x: where they differ, y is right 20 to 0 times"),
        ("a" * 11 + "b" * 9, "b" * 11 + "a" * 9, "neither is clearly better: where they differ, x"),
        ("ab" * 10, "ac" * 10, "x and y are right on the same images"),
    ],
)
def test_the_verdict_names_the_better_one(first: str, second: str, said: str) -> None:
    assert verdict(compare(*pair(first, second, "a" * 20))).startswith(said)


def test_parameters_differ_as_text_since_mlflow_keeps_text() -> None:
    first = contender("x", None, rate=0.003, hidden=[256, 64], epochs=20, only_here=1)
    second = contender("y", None, rate="0.001", hidden="[256, 64]", epochs="20", only_there=True)
    assert compare(first, second).params == [
        ("rate", "0.003", "0.001"),
        ("only_here", "1", "not set"),
        ("only_there", "not set", "True"),
    ]


def test_models_that_saw_different_test_images_are_compared_by_their_figures() -> None:
    first, second = pair("aab", "aaa", "aab")
    compared = compare(first, replace(second, test_digest="2" * 64))
    assert compared.paired is None
    assert verdict(compared).startswith("they were tested on different images")
    for estimate, right in zip(compared.estimates["accuracy"], (3, 2), strict=True):
        assert estimate
        assert (estimate.value, estimate.low, estimate.high) == (right / 3, *wilson(right, 3))
    other = compare(first, replace(second, test_digest="", answers=answers("aba", "aaa")))
    assert other.remarks == [
        "their predictions are of different test images, so only their figures are compared"
    ]


def test_without_predictions_a_line_says_how_to_get_them() -> None:
    first, second = pair("aab", "aaa", "aab")
    compared = compare(first, replace(second, answers=None))
    assert "the predictions of y are neither in MLflow nor in DVC's cache" in verdict(compared)
    assert compared.estimates["calibration error"][1] is None
    assert compared.bins[1] == []
    assert verdict(compared)[1:] in unescape(render_comparison(compared, Path("nowhere")))


def test_the_calibration_error_is_the_mean_distance_of_confidence_and_accuracy() -> None:
    given = replace(answers("a" * 10, "aaabbaaaaa"), confidence=np.array([0.55] * 5 + [1.0] * 5))
    low, high = reliability(given)
    assert (low.images, low.accuracy, high.images, high.accuracy) == (5, 0.6, 5, 1.0)
    assert low.confidence == pytest.approx(0.55)
    assert calibration_error([low, high]) == pytest.approx(0.5 * 0.05)


def test_the_table_of_predictions_is_read_and_a_damaged_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("actual,predicted,probability,loss\na,b,0.6,1.5\na,a,0.9,0.1\n")
    found = read_answers(path)
    assert (found.actual.tolist(), found.predicted.tolist()) == (["a", "a"], ["b", "a"])
    assert (found.confidence.tolist(), found.loss.tolist()) == ([0.6, 0.9], [1.5, 0.1])
    assert found.names == ()
    path.write_text("name,actual,predicted,probability,loss\na/1.png,a,b,0.6,1.5\n")
    assert read_answers(path).names == ("a/1.png",)
    for row in ("a,b,1.5,1\n", "a,b,nan,1\n", "a,b,much,1\n", "a,b,0.5,inf\n", ""):
        path.write_text(f"actual,predicted,probability,loss\n{row}")
        with pytest.raises(UserError, match="is not valid"):
            read_answers(path)


def test_each_class_is_shown_where_there_are_too_many_images() -> None:
    actual = "a" * 3 * SHOWN + "b" * 3
    wrong = replace(answers(actual, "c" * len(actual)), confidence=np.linspace(1, 0, len(actual)))
    shown = chosen(np.arange(len(actual)), wrong)
    assert shown.tolist() == [*range(SHOWN - 3), 3 * SHOWN, 3 * SHOWN + 1, 3 * SHOWN + 2]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The test split of scikit-learn's digits: 200 images of 8 x 8."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    np.save(tmp_path / "test.images.npy", (digits.images[:200] * 15).astype(np.uint8))
    np.save(tmp_path / "test.labels.npy", digits.target[:200].astype(np.int64))
    write_json(tmp_path / "digests.json", {"test": split_digest(tmp_path, "test")})
    return tmp_path


def by_centroid(prepared: Path, side: int) -> Contender:
    """The nearest mean of each class, of so many columns of the pixels."""
    images = np.load(prepared / "test.images.npy")[:, :, :side].reshape(200, -1).astype(float)
    labels = np.load(prepared / "test.labels.npy")
    means = np.stack([images[labels == label].mean(axis=0) for label in range(10)])
    distances = ((images[:, None] - means) ** 2).sum(axis=2) ** 0.5 / 20
    probabilities = np.exp(-distances) / np.exp(-distances).sum(axis=1, keepdims=True)
    names = np.array(["<zero>", *map(str, range(1, 10))])
    given = Answers(
        names[labels],
        names[probabilities.argmax(axis=1)],
        probabilities.max(axis=1),
        -np.log(probabilities[np.arange(200), labels]),
    )
    digest = split_digest(prepared, "test")
    return replace(contender(f"columns {side}", given, columns=side), test_digest=digest)


def test_the_page_needs_nothing_beside_it(prepared: Path) -> None:
    compared = compare(by_centroid(prepared, 8), by_centroid(prepared, 4))
    page = render_comparison(compared, prepared)
    assert compared.paired
    assert page.count("data:image/png;base64,") == sum(compared.paired.counts) > 10
    assert not [word for word in ("http", "<link", "@import", "url(") if word in page]
    assert "&lt;zero&gt;" in page
    assert "<zero>" not in page
    assert verdict(compared)[1:] in page
    assert "<td>columns</td><td>8</td><td>4</td>" in page


def test_another_test_split_in_the_workspace_gives_no_pictures(prepared: Path) -> None:
    compared = compare(by_centroid(prepared, 8), by_centroid(prepared, 4))
    write_json(prepared / "digests.json", {"test": "9" * 64})
    page = render_comparison(compared, prepared)
    assert "data:image" not in page
    assert "Without pictures" in page
    assert "test image " in page
