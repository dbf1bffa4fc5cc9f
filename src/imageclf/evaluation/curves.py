"""How far probabilities can be trusted: calibration, precision-recall, ROC, coverage.

scikit-learn computes the same, and the tests hold these against it; its import alone takes 1.5 s.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imageclf.evaluation.calibration import BINS
from imageclf.evaluation.metrics import Predictions

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Confidence (the highest probability) against accuracy, over the bins that hold images.

    Attributes:
        confidence: the mean in each bin.
        accuracy: the share of right images in each bin.
        share: the share of all images that each bin holds.
    """

    confidence: Values
    accuracy: Values
    share: Values

    @property
    def excess(self) -> float:
        """The mean confidence less the accuracy: positive for an over-confident model."""
        return float(self.share @ (self.confidence - self.accuracy))


@dataclass(frozen=True)
class Ranking:
    """How well the probability of one class tells its images from all others.

    The arrays have a point for each different probability, from the highest to the lowest.
    """

    recall: Values
    precision: Values
    false_positive_rate: Values

    @property
    def average_precision(self) -> float:
        """The area below the precision-recall curve, summed in steps of recall."""
        return float(np.diff(self.recall, prepend=0) @ self.precision)

    @property
    def roc_auc(self) -> float:
        """The area below the ROC curve."""
        rate, recall = np.append(0, self.false_positive_rate), np.append(0, self.recall)
        return float(np.trapezoid(recall, rate))


def reliability(predictions: Predictions) -> Reliability:
    """The reliability diagram of the predicted classes."""
    confidence = predictions.confidence.astype(np.float64)
    place = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    counts = np.bincount(place, minlength=BINS)
    held = counts > 0
    sure, right = (
        np.bincount(place, values, minlength=BINS)[held] / counts[held]
        for values in (confidence, predictions.right)
    )
    return Reliability(sure, right, counts[held] / len(place))


def rankings(predictions: Predictions) -> Iterator[Ranking | None]:
    """A ranking per class; None where all images are of the class, or none is."""
    for label, scores in enumerate(predictions.probabilities.T):
        positive = predictions.labels == label
        order = np.argsort(-scores, kind="stable")
        last = _last_of_equals(scores[order])
        found = np.cumsum(positive[order])[last]
        false = last + 1 - found
        if not found[-1] or not false[-1]:
            yield None
        else:
            yield Ranking(found / found[-1], found / (last + 1), false / false[-1])


def coverage(predictions: Predictions) -> tuple[Values, Values]:
    """The share of images kept, the most confident first, and the accuracy among them."""
    order = np.argsort(-predictions.confidence, kind="stable")
    right = predictions.right[order]
    last = _last_of_equals(predictions.confidence[order])
    return (last + 1) / len(right), np.cumsum(right)[last] / (last + 1)


def _last_of_equals(ordered: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.append(np.nonzero(np.diff(ordered))[0], len(ordered) - 1)
