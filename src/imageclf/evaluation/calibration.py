"""What is fitted on the val split after the training, and how far probabilities can be trusted."""

import math
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from imageclf.data.batches import in_turn
from imageclf.data.prepared import Labels, Split
from imageclf.evaluation.metrics import Predictions
from imageclf.inference.calibration import Calibration
from imageclf.inference.novelty import Novelty, points_of, squares, statistics
from imageclf.network.classifier import Classifier, evaluation_batch, to_pixels

# Standard deviation of log T before any image is seen. It decides where images are few: the
# calibration of four trained networks with 10 to 160 images of val was best, on average, by this.
PRIOR = 0.25
LARGEST_LOG = 3.0  # of a temperature
HALVINGS = 24
BINS = 15  # as in Guo et al.
REFERENCES = 1000  # images of val that an image is compared with, at most
KNOWN = 0.99  # share of the images of val that are not called novel
# Variance of the statistics beside that of the features. Measured between 0.1 and 2: less of it
# misses noise and inverted drawings, more of it misses flowers among cats and dogs.
SHARE = 0.25
SMALLEST = 1e-3  # spread, and threshold, of images that are all alike


@torch.no_grad()
def calibrate(
    classifier: Classifier, val: Split, features: Split | None, method: str
) -> Calibration:
    """Fit what ``evaluate.calibrate`` asks for, and novelty, on the val split.

    With the features of the split, which a frozen backbone gave, only the head computes.
    """
    classifier.eval()
    size, device = evaluation_batch(val.images.shape[1:]), classifier.scale.device
    known = in_turn(features, size, device) if features else repeat(None)
    found, measured = [], []
    for images, its in zip(in_turn(val, size, device), known, strict=False):
        found.append(classifier.features(images) if its is None else its)
        measured.append(statistics(to_pixels(images)))
    rows = torch.cat(found)
    logits = classifier.logits(classifier.network.head(rows)).double().cpu().numpy()
    temperature = 1.0 if method == "none" else fit_temperature(logits, val.labels)
    return Calibration(temperature, fit_novelty(rows, torch.cat(measured)))


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


def fit_novelty(features: Tensor, measured: Tensor) -> Novelty:
    """Tell images from those of val.

    The threshold is such that one in a hundred of them is beyond it, each compared with the others.

    Args:
        features: float32, N x F, of two images at least.
        measured: the ``statistics`` of the same images, N x 4.
    """
    spread = functional.normalize(features).var(dim=0, correction=0).sum().clamp_min(SMALLEST)
    deviations = measured.std(dim=0, correction=0).clamp_min(SMALLEST)
    shift, scale = measured.mean(dim=0), (SHARE * spread / 4).sqrt() / deviations
    points = points_of(features, measured, shift, scale)
    chosen = torch.linspace(0, len(points) - 1, min(len(points), REFERENCES)).round().long()
    references = points[chosen]
    parts = points.split(REFERENCES)
    nearest = torch.cat([squares(part, references).topk(2, largest=False)[0] for part in parts])
    nearest[chosen, 0] = nearest[chosen, 1]  # the nearest one of a reference is itself
    distances = nearest[:, 0].clamp_min(0).sqrt().cpu().numpy()
    threshold = max(float(np.quantile(distances, KNOWN)), SMALLEST)
    return Novelty(references, shift, scale, torch.tensor(threshold)).cpu()


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
