"""The page of the evaluation report: a verdict, what to do next, and the evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imageclf.data.prepared import Split
from imageclf.drawing.html import render
from imageclf.drawing.pictures import data_address, signed_address
from imageclf.drawing.plots import filter_mosaic, layers
from imageclf.evaluation.cost import Cost
from imageclf.evaluation.curves import Ranking, coverage, rankings
from imageclf.evaluation.gallery import (
    Confusion,
    Gallery,
    Rows,
    Shown,
    confusions,
    least_sure,
    most_confused,
    random_right,
    worst,
)
from imageclf.evaluation.metrics import Predictions, f1_interval, per_class_table
from imageclf.evaluation.report_charts import histogram, training_charts, trust_charts
from imageclf.evaluation.verdict import Evidence, next_steps, verdict
from imageclf.training.preview import Preview

FEWER = 12  # least sure, and right images
STRONGEST, EXAMPLES = 10, 4  # confusions, and images of each
MATRIX, IN_CELL = 20, 8  # classes in the matrix, and images behind a cell
ROOM = 1_200_000  # bytes of the images behind all cells
KEPT = 0.9  # share of the images that are not left to a person


@dataclass(frozen=True)
class Inside:
    """What the network saw first, and its weights by name; images are H x W x C."""

    preview: Preview
    weights: Mapping[str, NDArray[np.float32]]
    image_shape: Sequence[int]

    @property
    def first_layer(self) -> NDArray[np.float32]:
        """The weights that meet the pixels."""
        return next(value for value in self.weights.values() if value.ndim in {2, 4})


@dataclass(frozen=True)
class Report:
    """What the report is made from.

    Attributes:
        rows: of the test images.
        pictures: mistakes to show.
        seed: draws the right images that are shown.
    """

    test: Split
    rows: Rows
    predictions: Predictions
    evidence: Evidence
    inside: Inside
    cost: Cost
    pictures: int
    seed: int

    @property
    def gallery(self) -> Gallery:
        """The test images, to be shown."""
        names = self.evidence.description.class_names
        return Gallery(self.test.images, self.rows, self.predictions, names)


def report_page(report: Report, warned: Sequence[str]) -> str:
    """The page as HTML; no request leaves it."""
    evidence, predictions = report.evidence, report.predictions
    found, ranked = confusions(predictions), list(rankings(predictions))
    gallery = report.gallery
    return render(
        Path(__file__).with_name("report.html.j2"),
        warnings=warned,
        verdict=verdict(evidence),
        steps=list(next_steps(evidence)),
        tiles=_tiles(evidence.figures),
        confidence=float(predictions.confidence.mean()),
        figures=evidence.figures,
        confusions=_strongest(found, gallery, evidence),
        matrix=_matrix(found, gallery, evidence),
        classes=_classes(report, ranked),
        galleries={
            "The worst mistakes": gallery.show(worst(predictions), report.pictures),
            "The least sure": gallery.show(least_sure(predictions), FEWER),
            "Right, drawn at random": gallery.show(random_right(predictions, report.seed), FEWER),
        },
        trust=trust_charts(predictions, evidence, ranked),
        areas=_areas(ranked),
        kept=_kept(predictions),
        training=training_charts(evidence),
        inside=_inside(report.inside),
        cost=report.cost,
        fingerprint=evidence.description.fingerprint,
    )


def _tiles(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """The figures as text, each with its name."""
    percent = {"accuracy": "right", "ece": "expected calibration error"}
    percent |= {
        name: f"among the {name.split('_')[1]} likeliest" for name in figures if "top_" in name
    }
    shares = [(f"{100 * figures[name]:.2f} %", label) for name, label in percent.items()]
    return [*shares, (f"{figures['loss']:.3f}", "loss"), (f"{figures['images']:,}", "test images")]


def _strongest(
    found: Sequence[Confusion], gallery: Gallery, evidence: Evidence
) -> list[dict[str, Any]]:
    """The confusions of most images: classes, counts and examples."""
    names, support = evidence.description.class_names, evidence.matrix.sum(axis=1)
    return [
        {
            "actual": names[each.actual],
            "predicted": names[each.predicted],
            "count": len(each.images),
            "of": int(support[each.actual]),
            "pictures": gallery.show(each.images, EXAMPLES),
        }
        for each in found[:STRONGEST]
    ]


def _matrix(found: Sequence[Confusion], gallery: Gallery, evidence: Evidence) -> dict[str, Any]:
    """The confusion matrix of the classes that are confused most, with the images behind it."""
    names = evidence.description.class_names
    chosen = most_confused(found, len(names), MATRIX)
    within = [each for each in found if {each.actual, each.predicted} <= {*chosen}]
    shown = gallery.show_each([each.images for each in within], IN_CELL, ROOM)
    behind: dict[tuple[int, int], list[Shown]] = {
        (each.actual, each.predicted): pictures
        for each, pictures in zip(within, shown, strict=True)
    }
    share = evidence.matrix / np.maximum(evidence.matrix.sum(axis=1, keepdims=True), 1)
    return {
        "all": len(names),
        "names": [names[label] for label in chosen],
        "rows": [
            [
                {
                    "count": int(evidence.matrix[actual, predicted]),
                    "shade": round(100 * float(share[actual, predicted]) ** 0.5),
                    "right": actual == predicted,
                    "pictures": behind.get((actual, predicted), []),
                }
                for predicted in chosen
            ]
            for actual in chosen
        ],
    }


def _classes(report: Report, ranked: Sequence[Ranking | None]) -> list[dict[str, Any]]:
    """A row per class, the lowest F1 first."""
    evidence = report.evidence
    table = per_class_table(report.predictions, evidence.description.class_names)
    table[["low", "high"]] = f1_interval(evidence.matrix)
    table["area"] = [each.average_precision if each else None for each in ranked]
    table["roc"] = [each.roc_auc if each else None for each in ranked]
    rows: list[dict[str, Any]] = table.sort_values("f1", kind="stable").to_dict(orient="records")
    return rows


def _areas(ranked: Sequence[Ranking | None]) -> tuple[float, float] | None:
    """Mean areas below the precision-recall and the ROC curves of all classes, if any has them."""
    known = [(each.average_precision, each.roc_auc) for each in ranked if each]
    if not known:
        return None
    precision, roc = np.mean(known, axis=0)
    return float(precision), float(roc)


def _kept(predictions: Predictions) -> float:
    """The accuracy where the least sure images are left to a person."""
    share, accuracy = coverage(predictions)
    return float(accuracy[np.searchsorted(share, KEPT)])


def _inside(inside: Inside) -> dict[str, Any]:
    """The first images with what the network saw of them, and the weights."""
    seen = inside.preview
    mosaic, _, _ = filter_mosaic(inside.first_layer, inside.image_shape)
    return {
        "pairs": [
            (data_address(original), data_address(changed), name, caption)
            for original, changed, name, caption in zip(
                seen.originals, seen.seen, seen.names, seen.captions, strict=True
            )
        ],
        "filters": signed_address(mosaic),
        "weights": [histogram(name, value) for name, value in layers(inside.weights)],
    }
