"""Predictions on the test split, and the metrics of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from imageclf.data.batches import in_turn
from imageclf.data.prepared import Labels, Split
from imageclf.intervals import wilson
from imageclf.network.classifier import Classifier, evaluation_batch

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Predictions:
    """Probabilities (float32, N x classes) for images, and their true labels (int64, N)."""

    probabilities: NDArray[np.float32]
    labels: Labels

    @property
    def predicted(self) -> Labels:
        """The most probable class of each image (int64, N)."""
        likeliest: Labels = self.probabilities.argmax(axis=1)
        return likeliest

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The highest probability of each image (float32, N)."""
        highest: NDArray[np.float32] = self.probabilities.max(axis=1)
        return highest

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image is right (N)."""
        return np.asarray(self.predicted == self.labels)

    @property
    def loss(self) -> NDArray[np.float64]:
        """Cross-entropy of each image: minus the log of the probability of its true class."""
        true_class = self.probabilities[np.arange(len(self.labels)), self.labels]
        return -np.log(np.maximum(true_class.astype(np.float64), np.finfo(np.float32).tiny))


@torch.no_grad()
def predict(classifier: Classifier, split: Split, features: Split | None = None) -> Predictions:
    """Probabilities for every image of a split, on the classifier's device.

    With the features of the split, which a frozen backbone gave, only the head computes.
    """
    classifier.eval()
    compute = classifier.network.head if features else classifier
    size = evaluation_batch(split.images.shape[1:])
    parts = [
        classifier.as_probabilities(compute(batch))
        for batch in in_turn(features or split, size, classifier.scale.device)
    ]
    return Predictions(torch.cat(parts).cpu().numpy(), split.labels)


def metrics(predictions: Predictions, train_labels: Labels, top_k: int) -> dict[str, float]:
    """The figures of ``reports/metrics.json``.

    ``accuracy_low`` is the lower end of the 99 % Wilson score interval of the accuracy.
    ``majority_accuracy`` is the accuracy of always guessing the commonest class of the train split.
    ``top_k`` is left out if there are no more classes than that: it would always be 1.
    """
    labels, count = predictions.labels, len(predictions.labels)
    correct = int(predictions.right.sum())
    ranked = np.argsort(-predictions.probabilities, axis=1, kind="stable")
    among = (ranked[:, :top_k] == labels[:, None]).any(axis=1)
    top = {} if top_k >= ranked.shape[1] else {f"top_{top_k}_accuracy": float(among.mean())}
    return {
        "accuracy": correct / count,
        **top,
        "loss": round(float(predictions.loss.mean()), 4),
        "accuracy_low": round(wilson(correct, count)[0], 4),
        "majority_accuracy": float((labels == np.bincount(train_labels).argmax()).mean()),
        "images": count,
    }


def f1_interval(matrix: NDArray[np.int64]) -> list[tuple[float, float]]:
    """The ends of the 99 % interval of the F1 of each class, by a confusion matrix.

    Of the images that are of the class or are taken for it, a share J is both, and F1 is
    2 J / (1 + J) (Hand, Christen and Kirielle 2021, https://arxiv.org/abs/2008.00103): the interval
    is Wilson's of J. It is 0 to 1 where there are no such images.
    """
    right = matrix.diagonal()
    either = matrix.sum(axis=0) + matrix.sum(axis=1) - right
    ends = (wilson(*pair) if pair[1] else (0.0, 1.0) for pair in zip(right, either, strict=True))
    return [(2 * low / (1 + low), 2 * high / (1 + high)) for low, high in ends]


def per_class_table(predictions: Predictions, class_names: Sequence[str]) -> "pd.DataFrame":
    """Precision, recall, F1 (0..1, 0 for nothing to divide) and support of each class."""
    import pandas as pd

    counts = confusion_matrix(predictions, len(class_names))
    support, found, right = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    return pd.DataFrame(
        {
            "class": class_names,
            "precision": right / np.maximum(found, 1),
            "recall": right / np.maximum(support, 1),
            "f1": 2 * right / np.maximum(support + found, 1),
            "support": support,
        }
    ).round(4)


def confusion_matrix(predictions: Predictions, classes: int) -> NDArray[np.int64]:
    """Images by true class (rows) and predicted class (columns): int64, classes x classes."""
    counts = np.bincount(predictions.labels * classes + predictions.predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def predictions_table(
    predictions: Predictions, class_names: Sequence[str], names: Sequence[str]
) -> "pd.DataFrame":
    """A row per test image, in order: actual and predicted class, probability, loss, name."""
    import pandas as pd

    classes = np.array(class_names)
    return pd.DataFrame(
        {
            "actual": classes[predictions.labels],
            "predicted": classes[predictions.predicted],
            "probability": predictions.confidence.round(4),
            "loss": predictions.loss.round(4),
            "name": names,
        }
    )


def worst_first(predictions: Predictions) -> NDArray[np.int64]:
    """The numbers of all images, that with the highest loss first: the most confident mistakes."""
    return np.argsort(-predictions.loss, kind="stable")
