"""What a model is worth, and what to do next, in words: rules over the figures of an evaluation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imageclf.evaluation.curves import Reliability
from imageclf.intervals import Z, percent, wilson
from imageclf.network.description import Description

# With fewer train images than that, a pretrained backbone probably does better: with 1,442 of cats
# and dogs it reaches 98.95 %, a training from scratch 85.67 % (docs/course.md).
FEW_PHOTOGRAPHS = 2000
RISE = 1.05  # of the val loss over its lowest, from which on a training learns by heart
FALL = 0.97  # of the val loss over the last quarter of the epochs, up to which it still learns
UNLEARNT, ALIKE = 0.9, 0.03  # train accuracy below it, and no further from that of val
WIDE = 0.1  # an interval of the accuracy of which little can be said
SKEWED = 4  # the commonest class has so many times the train images of the rarest
EXCESS = 0.03  # of the mean confidence over the accuracy
LARGER = {"mlp": "hidden", "mlp_sequential": "hidden", "cnn": "width", "resnet": "width"}


@dataclass(frozen=True)
class Evidence:
    """What the rules look at.

    Attributes:
        figures: those of ``reports/metrics.json``.
        history: a row per epoch, from 1, of ``reports/history.csv``.
        matrix: test images by true class (rows) and predicted class (columns).
        train_counts: train images of each class.
        class_weights: the parameter ``train.class_weights``.
    """

    figures: Mapping[str, float]
    description: Description
    history: Sequence[Mapping[str, float]]
    matrix: NDArray[np.int64]
    train_counts: NDArray[np.int64]
    reliability: Reliability
    class_weights: str

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the 99 % interval of the accuracy."""
        return wilson(int(self.matrix.trace()), int(self.matrix.sum()))

    @property
    def trained(self) -> Mapping[str, float]:
        """The row of the epoch whose weights the model has."""
        return self.history[self.description.epoch - 1]

    @property
    def best(self) -> Mapping[str, float]:
        """The row of the epoch with the lowest val loss."""
        return min(self.history, key=lambda row: row["val_loss"])

    @property
    def improving(self) -> bool:
        """Whether the val loss was at its lowest, and falling, as the training ended."""
        if (epochs := len(self.history)) < 3:
            return False
        last, earlier = self.history[-1], self.history[-1 - max(1, epochs // 4)]
        return last is self.best and last["val_loss"] < FALL * earlier["val_loss"]


@dataclass(frozen=True)
class Advice:
    """Something that was found, and what to do about it; parameters and commands in backticks."""

    found: str
    todo: str


def verdict(evidence: Evidence) -> str:
    """The accuracy, with its interval, in plain words."""
    low, high = map(percent, evidence.interval)
    figures = evidence.figures
    return (
        f"{percent(figures['accuracy'])} of the {figures['images']:,.0f} test images are right. On "
        f"other images of the same kind expect {low.removesuffix(' %')} to {high} (99 % "
        "confidence). Always guessing the commonest class gives "
        f"{percent(figures['majority_accuracy'])}."
    )


def warnings(evidence: Evidence) -> Iterator[str]:
    """What makes the model or its figures of little use."""
    figures, description = evidence.figures, evidence.description
    if figures["accuracy_low"] <= figures["majority_accuracy"]:
        yield (
            f"the model is not clearly better than always guessing the commonest class: accuracy "
            f"{figures['accuracy']:.2%}, at least {figures['accuracy_low']:.2%} with 99 % "
            f"confidence, against {figures['majority_accuracy']:.2%}. It has learnt next to "
            "nothing."
        )
    in_colour, train_images = len(description.image_shape) == 3, evidence.train_counts.sum()
    if in_colour and not description.weights and train_images < FEW_PHOTOGRAPHS:
        yield (
            f"the network learnt from {train_images:,} photographs alone: a pretrained backbone "
            "would probably do better, by `imageclf use my_photos && dvc repro`"
        )


def next_steps(evidence: Evidence) -> Iterator[Advice]:
    """The advice of every rule that applies, the most promising first."""
    for rule in (
        learns_by_heart,
        learns_still,
        learns_too_little,
        weakest_class,
        rarest_class,
        confidence,
        few_test_images,
    ):
        if advice := rule(evidence):
            yield advice


def learns_by_heart(evidence: Evidence) -> Advice | None:
    """The val loss rose after its lowest while the train loss fell, and the weights are later."""
    best, trained = evidence.best, evidence.trained
    rises = trained["val_loss"] > RISE * best["val_loss"]
    if not (
        rises and trained["epoch"] > best["epoch"] and trained["train_loss"] < best["train_loss"]
    ):
        return None
    return Advice(
        f"It learns by heart from epoch {best['epoch'] + 1:.0f} on: the val loss rises from "
        f"{best['val_loss']:.3f} to {trained['val_loss']:.3f}, while the train loss falls.",
        "`train.patience: 5` stops in time and keeps the best epoch. `model.dropout: 0.3` or an "
        "augmentation, such as `augment.shift: 2`, makes it harder to learn by heart.",
    )


def learns_still(evidence: Evidence) -> Advice | None:
    """More epochs would help."""
    if not evidence.improving:
        return None
    epochs = len(evidence.history)
    return Advice(
        f"It was still learning: the val loss is lowest after the last of {epochs} epochs.",
        f"Try `train.epochs: {2 * epochs}`.",
    )


def learns_too_little(evidence: Evidence) -> Advice | None:
    """The train images are not learnt either."""
    trained = evidence.trained
    train, val = trained["train_accuracy"], trained["val_accuracy"]
    if evidence.improving or train >= UNLEARNT or train - val > ALIKE:
        return None
    size = LARGER.get(evidence.description.model.name)
    larger = f"A larger `model.{size}`" if size else "`model.freeze: then`, if it is `backbone`"
    return Advice(
        f"It does not learn the train images themselves: {percent(train)} of them are right, "
        f"and {percent(val)} of val.",
        f"{larger}, or another `train.learning_rate`: `imageclf rate` suggests one.",
    )


def weakest_class(evidence: Evidence) -> Advice | None:
    """A class is clearly missed more often than the average image."""
    support, right = evidence.matrix.sum(axis=1), evidence.matrix.diagonal()
    recall = np.where(support, right / np.maximum(support, 1), 1)
    weakest = int(recall.argmin())
    high = wilson(right[weakest], support[weakest])[1] if support[weakest] else 1
    if high >= evidence.figures["accuracy"]:
        return None
    missed = evidence.matrix[weakest].copy()
    missed[weakest] = 0
    names, other = evidence.description.class_names, int(missed.argmax())
    return Advice(
        f"{names[weakest]} is the weakest class: {missed[other]:,} of {support[weakest]:,} are "
        f"taken for {names[other]}, {missed.sum():,} are missed in all.",
        "Look at those pictures below. Where labels are wrong, `imageclf suspects` finds more of "
        "the kind; where they are right, more train images of both classes help most.",
    )


def rarest_class(evidence: Evidence) -> Advice | None:
    """A class has few train images, and is missed more often than the average image."""
    counts, support = evidence.train_counts, evidence.matrix.sum(axis=1)
    rarest, commonest = int(counts.argmin()), int(counts.argmax())
    missed_more = evidence.matrix[rarest, rarest] < evidence.figures["accuracy"] * support[rarest]
    if counts[commonest] < SKEWED * counts[rarest] or not missed_more:
        return None
    if evidence.class_weights != "none":
        return None
    names = evidence.description.class_names
    return Advice(
        f"The classes are of uneven size: {counts[rarest]:,} train images of {names[rarest]}, "
        f"{counts[commonest]:,} of {names[commonest]}.",
        "`train.class_weights: balanced` lets rare classes count more.",
    )


def confidence(evidence: Evidence) -> Advice | None:
    """The model is surer than it is right, by more than chance explains."""
    accuracy, excess = evidence.figures["accuracy"], evidence.reliability.excess
    chance = Z * np.sqrt(accuracy * (1 - accuracy) / evidence.figures["images"])
    if excess <= max(EXCESS, chance):
        return None
    calibrated = evidence.figures["temperature"] != 1
    remedy = "`train.label_smoothing: 0.1`" if calibrated else "`evaluate.calibrate: temperature`"
    return Advice(
        f"It is over-confident: {percent(accuracy + excess)} sure on average, and "
        f"{percent(accuracy)} right.",
        f"Do not take its percentages for odds. {remedy} makes it less sure.",
    )


def few_test_images(evidence: Evidence) -> Advice | None:
    """The interval of the accuracy is wide."""
    low, high = evidence.interval
    if high - low <= WIDE:
        return None
    return Advice(
        f"There are only {evidence.figures['images']:,.0f} test images: the accuracy may be "
        f"anywhere from {100 * low:.0f} to {100 * high:.0f} %.",
        "Take no smaller difference between two models for real. Where the data have no test split "
        "of their own, `transform.test_fraction` makes it larger.",
    )
