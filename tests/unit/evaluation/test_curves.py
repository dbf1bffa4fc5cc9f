import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from imageclf.evaluation.calibration import BINS, expected_calibration_error
from imageclf.evaluation.curves import coverage, rankings, reliability
from imageclf.evaluation.metrics import Predictions


@pytest.fixture(params=[3, 1])
def predictions(request: pytest.FixtureRequest) -> Predictions:
    """Of five classes, with many equal probabilities where they have one decimal."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 400)
    logits = generator.normal(size=(400, 5)) + 2 * np.eye(5)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions(probabilities.round(request.param).astype(np.float32), labels)


def test_the_reliability_diagram_is_that_of_scikit_learn(predictions: Predictions) -> None:
    found = reliability(predictions)
    confidence = predictions.confidence.astype(np.float64)
    accuracy, sure = calibration_curve(predictions.right, confidence, n_bins=BINS)
    assert found.accuracy == pytest.approx(accuracy)
    assert found.confidence == pytest.approx(sure)
    assert found.share.sum() == pytest.approx(1)
    gap = found.share @ np.abs(found.confidence - found.accuracy)
    assert gap == pytest.approx(expected_calibration_error(predictions), abs=0.01)


def test_the_excess_is_the_mean_confidence_less_the_accuracy() -> None:
    # 4 images at 0.9, 3 of them right; 6 at 0.6, all right.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 6, dtype=np.float32)
    found = reliability(Predictions(probabilities, np.array([0, 0, 0, 1] + [0] * 6)))
    assert found.excess == pytest.approx(0.72 - 0.9, abs=1e-6)


def test_curves_and_areas_are_those_of_scikit_learn(predictions: Predictions) -> None:
    for label, found in enumerate(rankings(predictions)):
        assert found
        of_class, scores = predictions.labels == label, predictions.probabilities[:, label]
        precision, recall, _ = precision_recall_curve(of_class, scores)
        assert found.precision == pytest.approx(precision[-2::-1])
        assert found.recall == pytest.approx(recall[-2::-1])
        rate, hits, _ = roc_curve(of_class, scores, drop_intermediate=False)
        assert found.false_positive_rate == pytest.approx(rate[1:])
        assert found.recall == pytest.approx(hits[1:])
        assert found.roc_auc == pytest.approx(roc_auc_score(of_class, scores))
        assert found.average_precision == pytest.approx(average_precision_score(of_class, scores))


def test_a_class_without_images_or_without_others_has_no_curves() -> None:
    ranked = [*rankings(Predictions(np.full((4, 3), 1 / 3, np.float32), np.zeros(4, np.int64)))]
    assert ranked == [None, None, None]


def test_coverage_keeps_the_most_confident_images() -> None:
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], dtype=np.float32)
    share, accuracy = coverage(Predictions(probabilities, np.array([1, 0, 1, 0])))
    assert share.tolist() == [0.25, 0.5, 1]  # the two at 0.6 are kept together
    assert accuracy.tolist() == [1, 0.5, 0.5]
