"""The charts of the evaluation report."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from imageclf.drawing.charts import Axis, Series, chart
from imageclf.evaluation.curves import Ranking, Reliability, coverage
from imageclf.evaluation.metrics import Predictions
from imageclf.evaluation.verdict import Evidence

COLOURS = ("blue", "amber", "red")  # of the classes whose curves are drawn, the hardest ones
SMALLEST, LARGEST = 2.0, 14.0  # radius of a dot that stands for no image, and for all
SHARE = Axis(percent=True)


def trust_charts(
    predictions: Predictions, evidence: Evidence, ranked: Sequence[Ranking | None]
) -> list[Markup]:
    """How far probabilities can be trusted."""
    return [
        reliability_chart(evidence.reliability),
        coverage_chart(predictions),
        *ranking_charts(ranked, evidence.description.class_names),
    ]


def reliability_chart(seen: Reliability) -> Markup:
    """The reliability diagram: a dot per bin, the larger the more images it holds."""
    radius = SMALLEST + (LARGEST - SMALLEST) * np.sqrt(seen.share)
    return chart(
        "Is it as right as it is sure?",
        [
            Series("as right as it is sure", [0, 1], [0, 1], "soft", "dashed"),
            Series(
                "images of like confidence", seen.confidence, seen.accuracy, "blue", "dots", radius
            ),
        ],
        Axis(percent=True, label="confidence"),
        SHARE,
    )


def coverage_chart(predictions: Predictions) -> Markup:
    """The accuracy of the most confident images, by their share."""
    share, accuracy = coverage(predictions)
    return chart(
        "Accuracy, where the unsure ones are left to a person",
        [Series("accuracy of the rest", share, accuracy, "green")],
        Axis(percent=True, label="share of the images kept"),
        Axis(max(0.0, float(accuracy.min()) - 0.01), percent=True),
    )


def ranking_charts(ranked: Sequence[Ranking | None], class_names: Sequence[str]) -> list[Markup]:
    """Precision-recall and ROC curves of the classes with the lowest average precision."""
    known = [(name, each) for name, each in zip(class_names, ranked, strict=True) if each]
    hardest = sorted(known, key=lambda pair: pair[1].average_precision)
    drawn = [(*pair, colour) for pair, colour in zip(hardest, COLOURS, strict=False)]
    precision = [
        Series(f"{name} {each.average_precision:.3f}", each.recall, each.precision, colour)
        for name, each, colour in drawn
    ]
    roc = [
        Series(
            f"{name} {each.roc_auc:.3f}",
            np.append(0, each.false_positive_rate),
            np.append(0, each.recall),
            colour,
        )
        for name, each, colour in drawn
    ]
    found, taken = "recall: share of its images found", "share of other images taken for it"
    return [
        chart(
            "Precision by recall: the hardest classes",
            precision,
            Axis(label=found, percent=True),
            SHARE,
        ),
        chart("ROC: the same classes", roc, Axis(label=taken, percent=True), SHARE),
    ]


def training_charts(evidence: Evidence) -> list[Markup]:
    """Loss and accuracy by epoch, with the lowest val loss marked."""
    best = evidence.best
    mark = Series("", [best["epoch"]], [best["val_loss"]], "amber", "dots")
    return [
        _by_epoch(evidence, "loss", [mark]),
        _by_epoch(evidence, "accuracy", []),
    ]


def _by_epoch(evidence: Evidence, quantity: str, marks: Sequence[Series]) -> Markup:
    epochs = [row["epoch"] for row in evidence.history]
    train, val = (
        [row[f"{split}_{quantity}"] for row in evidence.history] for split in ("train", "val")
    )
    low, high = min(train + val), max(train + val)
    return chart(
        quantity.capitalize(),
        [Series("train", epochs, train, "blue"), Series("val", epochs, val, "amber"), *marks],
        Axis(1, max(len(epochs), 2), "epoch", whole=True),
        Axis(low, high if high > low else low + 1, percent=quantity == "accuracy"),
    )


def histogram(name: str, weights: NDArray[np.float32]) -> Markup:
    """How the weights of a layer are spread."""
    counts, edges = np.histogram(weights, bins=60)
    return chart(
        f"{name}  {'x'.join(map(str, weights.shape))}",
        [Series("", (edges[:-1] + edges[1:]) / 2, counts, form="area")],
        Axis(float(edges[0]), float(edges[-1])),
        Axis(0, int(counts.max())),
    )
