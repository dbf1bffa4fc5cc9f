"""The comparison of two models as one HTML page that needs nothing beside it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imageclf.data.prepared import Images, load_split
from imageclf.drawing.html import render
from imageclf.drawing.pictures import data_address
from imageclf.evaluation.comparison import Answers, Comparison, Estimate, verdict
from imageclf.files import read_json
from imageclf.intervals import percent
from imageclf.tracking.gate import SIGNIFICANCE, p_told

SHOWN = 160  # images that only one model has right, of each model


@dataclass(frozen=True)
class Case:
    """An image that only one of two models has right.

    Attributes:
        address: ``data:...``; empty where the image is not at hand.
        name: of its file, or its number in the test split.
        predicted: the class that each model takes it for.
        confidence: of each.
    """

    address: str
    name: str
    actual: str
    predicted: tuple[str, str]
    confidence: tuple[float, float]


def render_comparison(comparison: Comparison, prepared: Path) -> str:
    """The page; its images come from a prepared folder if that holds the same test split."""
    images = _test_images(comparison, prepared)
    return render(
        Path(__file__).with_name("comparison.html.j2"),
        compared=comparison,
        verdict=verdict(comparison),
        figures={
            name: [_told(name, each) for each in pair]
            for name, pair in comparison.estimates.items()
        },
        scale=_scale(comparison),
        cases=_cases(comparison, images),
        pictured=images is not None,
        percent=percent,
        p_told=p_told,
        significance=SIGNIFICANCE,
    )


def _told(name: str, estimate: Estimate | None) -> tuple[str, str]:
    """A figure and its interval as text."""
    if estimate is None:
        return "not known", ""
    form = "{:.4f}".format if name == "loss" else percent
    if estimate.low is None or estimate.high is None:
        return form(estimate.value), ""
    return form(estimate.value), f"{form(estimate.low).removesuffix(' %')} to {form(estimate.high)}"


def _scale(comparison: Comparison) -> tuple[float, float] | None:
    """The ends of an axis for the accuracies of both; None if one is not known."""
    ends = [
        end
        for each in comparison.estimates.get("accuracy", (None,))
        for end in ((each.low, each.high) if each else (None,))
        if end is not None
    ]
    if len(ends) < 4:
        return None
    margin = (max(ends) - min(ends)) / 8
    return max(0.0, min(ends) - margin), min(1.0, max(ends) + margin)


def _test_images(comparison: Comparison, prepared: Path) -> Images | None:
    """The images of the test split that both models saw; None if the folder has another one."""
    digests = prepared / "digests.json"
    if comparison.paired is None or not digests.exists():
        return None
    if read_json(digests)["test"] not in {model.test_digest for model in comparison.models}:
        return None
    return load_split(prepared, "test").images


def _cases(comparison: Comparison, images: Images | None) -> tuple[list[Case], list[Case]]:
    """The images that only the first, and only the second model has right."""
    first, second = (model.answers for model in comparison.models)
    if comparison.paired is None or first is None or second is None:
        return [], []

    def case(index: int) -> Case:
        return Case(
            address=data_address(images[index]) if images is not None else "",
            name=first.names[index] if first.names else f"test image {index:,}",
            actual=str(first.actual[index]),
            predicted=(str(first.predicted[index]), str(second.predicted[index])),
            confidence=(float(first.confidence[index]), float(second.confidence[index])),
        )

    shown = zip(comparison.paired.only, (second, first), strict=True)
    mine, its = ([case(index) for index in chosen(only, wrong)] for only, wrong in shown)
    return mine, its


def chosen(only: NDArray[np.int64], wrong: Answers) -> NDArray[np.int64]:
    """At most ``SHOWN`` of the images, the surest mistake of the wrong model first.

    If there are more, each class is shown alike.
    """
    surest = only[np.argsort(-wrong.confidence[only], kind="stable")]
    seen, rank = Counter[str](), list[int]()
    for name in wrong.actual[surest].tolist():
        rank.append(seen[name])
        seen[name] += 1
    return surest[np.sort(np.argsort(rank, kind="stable")[:SHOWN])]
