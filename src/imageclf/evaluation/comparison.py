"""Two models compared: their parameters, their figures, and their answers for each test image."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclf.files import UserError, read_csv
from imageclf.intervals import Z, wilson
from imageclf.tracking.gate import SIGNIFICANCE, mcnemar, p_told

BINS = 15  # of the confidence, equally wide, as in metrics.json
NOT_SET = "not set"  # the value of a parameter that the other model alone has


@dataclass(frozen=True)
class Answers:
    """A model's answers for the images of its test split, in order.

    Attributes:
        actual: the true class of each image (text, N).
        predicted: the most probable class (text, N).
        confidence: its probability, 0..1 (float64, N).
        loss: the cross-entropy (float64, N).
        names: of the images' files; empty if they are not known.
    """

    actual: NDArray[np.str_]
    predicted: NDArray[np.str_]
    confidence: NDArray[np.float64]
    loss: NDArray[np.float64]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.actual)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is right (bool, N)."""
        return np.asarray(self.actual == self.predicted)


@dataclass(frozen=True)
class Contender:
    """A model in a comparison.

    Attributes:
        title: how it is called on the page and in the terminal.
        params: every parameter but those of ``runtime``, by dotted path.
        figures: of ``reports/metrics.json``; empty if they are not available.
        test_digest: the sha256 of its test split; empty if it is not known.
        answers: None if its predictions are not available.
    """

    title: str
    fingerprint: str
    params: Mapping[str, Any]
    figures: Mapping[str, float]
    test_digest: str
    answers: Answers | None


@dataclass(frozen=True)
class Estimate:
    """A figure, with the ends of its 99 % confidence interval where they are known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bin:
    """The answers of similar confidence: its mean, the share that is right, and how many."""

    confidence: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class ClassRow:
    """How many test images of a class there are, and how many each model has right."""

    name: str
    images: int
    right: tuple[int, int]
    only: tuple[int, int]


@dataclass(frozen=True)
class Paired:
    """The answers of two models for the same images.

    Attributes:
        only: the indices of the images that only the first, and only the second has right.
        both, neither: how many images both have right, and none of them.
        p: of McNemar's exact one-sided test, that the one that is right more often is better.
        classes: those in which they differ most first.
    """

    only: tuple[NDArray[np.int64], NDArray[np.int64]]
    both: int
    neither: int
    p: float
    classes: list[ClassRow]

    @property
    def counts(self) -> tuple[int, int]:
        """How many images only the first, and only the second has right."""
        return len(self.only[0]), len(self.only[1])


@dataclass(frozen=True)
class Comparison:
    """Two models, what differs between them, and the answers of both if they can be paired.

    Attributes:
        params: the name of each parameter that differs, and both values.
        estimates: figures by name; None for a model that lacks it.
        bins: the reliability of each; empty where its predictions are not available.
        remarks: why something could not be compared; a line each.
    """

    models: tuple[Contender, Contender]
    params: list[tuple[str, str, str]]
    estimates: dict[str, tuple[Estimate | None, Estimate | None]]
    bins: tuple[list[Bin], list[Bin]]
    paired: Paired | None
    remarks: list[str]


def read_answers(path: Path) -> Answers:
    """The rows of a ``predictions.csv``; a UserError if it is missing, or is no such table."""
    rows = read_csv(path, ["actual", "predicted", "probability", "loss"])
    with path.open(newline="", encoding="utf-8") as file:
        named = "name" in next(csv.reader(file), [])
    try:
        if not rows:
            raise ValueError("it has no rows")
        confidence, loss = (np.array([float(row[i]) for row in rows]) for i in (2, 3))
        if not ((confidence >= 0) & (confidence <= 1) & np.isfinite(loss)).all():
            raise ValueError("a probability is not in 0..1, or a loss is not finite")
    except ValueError as error:
        raise UserError(f"{path} is not valid ({error}): run `dvc repro` again") from None
    return Answers(
        actual=np.array([row[0] for row in rows], dtype=np.str_),
        predicted=np.array([row[1] for row in rows], dtype=np.str_),
        confidence=confidence,
        loss=loss,
        names=tuple(name for (name,) in read_csv(path, ["name"])) if named else (),
    )


def compare(first: Contender, second: Contender) -> Comparison:
    """Compare two models."""
    models = first, second
    bins = tuple(reliability(model.answers) if model.answers else [] for model in models)
    remarks = list(_remarks(models))
    return Comparison(
        models=models,
        params=list(_differing(first.params, second.params)),
        estimates=_estimates(models),
        bins=(bins[0], bins[1]),
        paired=None if remarks else _pair(models),
        remarks=remarks,
    )


def reliability(answers: Answers) -> list[Bin]:
    """The answers by confidence, in ``BINS`` bins of equal width without the empty ones."""
    number = np.minimum((answers.confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(
            float(answers.confidence[chosen].mean()),
            float(answers.right[chosen].mean()),
            int(chosen.sum()),
        )
        for chosen in (number == each for each in range(BINS))
        if chosen.any()
    ]


def calibration_error(bins: list[Bin]) -> float:
    """The expected calibration error (Naeini et al. 2015, AAAI), 0..1.

    It is the mean distance between confidence and accuracy, weighted by the images of each bin.
    """
    images = sum(each.images for each in bins)
    return sum(each.images * abs(each.confidence - each.accuracy) for each in bins) / images


def verdict(comparison: Comparison) -> str:
    """Which model is better, in one sentence."""
    paired, titles = comparison.paired, [model.title for model in comparison.models]
    if paired is None:
        return comparison.remarks[0]
    if not sum(paired.counts):
        return f"{titles[0]} and {titles[1]} are right on the same images"
    ahead = int(paired.counts[1] > paired.counts[0])
    won, lost = paired.counts[ahead], paired.counts[1 - ahead]
    counts = f"where they differ, {titles[ahead]} is right {won:,} to {lost:,} times"
    p = p_told(paired.p)
    if paired.p < SIGNIFICANCE:
        return f"{titles[ahead]} is better than {titles[1 - ahead]}: {counts} ({p})"
    return f"neither is clearly better: {counts}, which may be chance ({p})"


def _remarks(models: tuple[Contender, Contender]) -> Iterator[str]:
    """Why the answers cannot be compared image by image."""
    first, second = models
    if first.test_digest and second.test_digest and first.test_digest != second.test_digest:
        yield "they were tested on different images, so only their figures are compared"
        return
    for model in models:
        if model.answers is None:
            yield (
                f"the predictions of {model.title} are neither in MLflow nor in DVC's cache: "
                "`imageclf pull` fetches them if another machine has shared them, "
                "`imageclf rebuild` makes them again"
            )
    actual = [model.answers.actual for model in models if model.answers]
    if len(actual) == len(models) and not np.array_equal(actual[0], actual[1]):
        yield "their predictions are of different test images, so only their figures are compared"


def _differing(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """MLflow keeps values as text, so they are compared as text."""
    for name in dict.fromkeys([*first, *second]):
        values = str(first.get(name, NOT_SET)), str(second.get(name, NOT_SET))
        if values[0] != values[1]:
            yield name, values[0], values[1]


def _estimates(
    models: tuple[Contender, Contender],
) -> dict[str, tuple[Estimate | None, Estimate | None]]:
    own = [dict(_estimates_of(model)) for model in models]
    return {
        name: (own[0].get(name), own[1].get(name)) for name in dict.fromkeys([*own[0], *own[1]])
    }


def _estimates_of(model: Contender) -> Iterator[tuple[str, Estimate]]:
    figures, answers = model.figures, model.answers
    images = int(figures.get("images", len(answers) if answers else 0))
    for name, value in figures.items():
        if name.endswith("accuracy") and name != "majority_accuracy":
            interval = wilson(round(value * images), images) if images else ()
            yield name.replace("_", " "), Estimate(value, *interval)
    if answers:
        spread = Z * float(answers.loss.std()) / len(answers) ** 0.5
        mean = float(answers.loss.mean())
        yield "loss", Estimate(mean, mean - spread, mean + spread)
        yield "calibration error", Estimate(calibration_error(reliability(answers)))


def _pair(models: tuple[Contender, Contender]) -> Paired | None:
    first, second = (model.answers for model in models)
    if first is None or second is None:
        return None
    right = first.right, second.right
    only = right[0] & ~right[1], right[1] & ~right[0]
    won, lost = sorted((int(only[0].sum()), int(only[1].sum())), reverse=True)
    classes = []
    for name in np.unique(first.actual):
        chosen = first.actual == name
        counts = [int((each & chosen).sum()) for each in (*right, *only)]
        pairs = (counts[0], counts[1]), (counts[2], counts[3])
        classes.append(ClassRow(str(name), int(chosen.sum()), *pairs))
    return Paired(
        only=(np.flatnonzero(only[0]), np.flatnonzero(only[1])),
        both=int((right[0] & right[1]).sum()),
        neither=int((~right[0] & ~right[1]).sum()),
        p=mcnemar(won, lost),
        classes=sorted(classes, key=lambda row: -abs(row.only[0] - row.only[1])),
    )
