"""How far probabilities can be trusted, and the temperature that makes them fit the val split."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from imageclf.data.batches import in_turn
from imageclf.data.prepared import Labels, Split
from imageclf.evaluation.metrics import Predictions
from imageclf.inference.calibration import Calibration
from imageclf.network.classifier import Classifier, evaluation_batch

# Standard deviation of log T before any image is seen. It decides where images are few: the
# calibration of four trained networks with 10 to 160 images of val was best, on average, by this.
PRIOR = 0.25
LARGEST_LOG = 3.0  # of a temperature
HALVINGS = 24
BINS = 15  # as in Guo et al.


def calibrate(
    classifier: Classifier, val: Split, features: Split | None, method: str
) -> Calibration:
    """Fit what ``evaluate.calibrate`` asks for on the val split, on the classifier's device.

    With the features of the split, which a frozen backbone gave, only the head computes.
    """
    if method == "none":
        return Calibration()
    return Calibration(fit_temperature(logits(classifier, val, features), val.labels))


@torch.no_grad()
def logits(classifier: Classifier, split: Split, features: Split | None) -> NDArray[np.float64]:
    """Logits (N x classes) for every image of a split, up to a constant for each image."""
    classifier.eval()
    compute = classifier.network.head if features else classifier
    size = evaluation_batch(split.images.shape[1:])
    parts = [
        classifier.logits(compute(batch))
        for batch in in_turn(features or split, size, classifier.scale.device)
    ]
    return torch.cat(parts).double().cpu().numpy()


def fit_temperature(logits: NDArray[np.float64], labels: Labels) -> float:
    """The likeliest temperature of logits (N x classes), rounded to four decimals.

    Temperature scaling (https://arxiv.org/abs/1706.04599) divides the logits by T, which changes no
    predicted class. log T has a normal prior around 0, so that few images, or images without a
    mistake, do not lead to an extreme one.
    """
    low, high = -LARGEST_LOG, LARGEST_LOG
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        rising = _slope(logits, labels, math.exp(-middle)) + middle / PRIOR**2 > 0
        low, high = (low, middle) if rising else (middle, high)
    return round(math.exp(middle), 4)


def _slope(logits: NDArray[np.float64], labels: Labels, inverse: float) -> float:
    """The derivative of the summed cross-entropy by log T, at T = 1 / ``inverse``."""
    scaled = logits * inverse
    probabilities = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = (probabilities * scaled).sum()
    return float(scaled[np.arange(len(labels)), labels].sum() - expected)


def expected_calibration_error(predictions: Predictions) -> float:
    """Mean distance between confidence and accuracy, over images in 15 bins of equal width.

    https://arxiv.org/abs/1706.04599, section 2: the confidence is the highest probability.
    """
    confidence = predictions.probabilities.max(axis=1).astype(np.float64)
    right = predictions.predicted == predictions.labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(bins))


def uncalibrated(predictions: Predictions, temperature: float) -> Predictions:
    """The same predictions without the temperature that they were calibrated with."""
    powers = predictions.probabilities.astype(np.float64) ** temperature
    shares = powers / powers.sum(axis=1, keepdims=True)
    return Predictions(shares.astype(np.float32), predictions.labels)


def calibration_figures(predictions: Predictions, temperature: float) -> dict[str, float]:
    """Figures of ``reports/metrics.json``: those with ``uncalibrated`` are of temperature 1."""
    before = uncalibrated(predictions, temperature)
    return {
        "ece": round(expected_calibration_error(predictions), 4),
        "uncalibrated_ece": round(expected_calibration_error(before), 4),
        "uncalibrated_loss": round(float(before.loss.mean()), 4),
        "temperature": temperature,
    }
