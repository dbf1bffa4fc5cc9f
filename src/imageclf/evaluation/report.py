"""The evaluation report: pictures, tables and a page that shows them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imageclf.data.prepared import Split
from imageclf.drawing import plots
from imageclf.drawing.html import render
from imageclf.evaluation.metrics import (
    Predictions,
    confusion_matrix,
    per_class_table,
    predictions_table,
    worst_first,
)
from imageclf.files import write_json, write_text
from imageclf.network.classifier import Classifier
from imageclf.network.description import Description
from imageclf.params import Params
from imageclf.project.folder import WARNINGS
from imageclf.text import csv_cells
from imageclf.training.preview import SEEN, preview

if TYPE_CHECKING:
    import pandas as pd

LABELS = {
    "accuracy_low": "accuracy at least (99 % confidence)",
    "majority_accuracy": "always guessing the commonest class",
    "images": "test images",
}
# With fewer train images than that, a pretrained backbone probably does better: with 1,442 of cats
# and dogs it reaches 98.95 %, a training from scratch 85.67 % (docs/course.md).
FEW_PHOTOGRAPHS = 2000


def write_report(
    folder: Path,
    test: Split,
    predictions: Predictions,
    figures: dict[str, float],
    description: Description,
    history: "pd.DataFrame",
    pictures: int,
    warned: Sequence[str],
) -> None:
    """Write ``index.html``, its pictures, ``warnings.json`` and two tables as CSV files."""
    names = np.array(description.class_names)
    plots.save_figure(plots.loss_curves(history), folder / "loss.png")
    matrix = confusion_matrix(predictions, len(names))
    plots.save_figure(plots.confusion(matrix, description.class_names), folder / "confusion.png")
    chosen = worst_first(predictions, pictures)
    grid = plots.image_grid(
        test.images[chosen],
        names[predictions.predicted[chosen]].tolist(),
        names[predictions.labels[chosen]].tolist(),
        predictions.probabilities[chosen].max(axis=1),
        f"The {len(chosen)} test images with the highest loss",
    )
    plots.save_figure(grid, folder / "mistakes.png")
    table = per_class_table(predictions, description.class_names)
    csv_cells(table).to_csv(folder / "per_class.csv", index=False)
    each = predictions_table(predictions, description.class_names)
    csv_cells(each).to_csv(folder / "predictions.csv", index=False)
    write_text(folder / "index.html", _page(figures, description, table, warned))
    write_json(folder / WARNINGS.name, warned)


def draw_training(
    folder: Path, classifier: Classifier, params: Params, train: Split, class_names: Sequence[str]
) -> None:
    """Write ``first_batch.png``, ``filters.png`` and ``weights.png``."""
    weights = {
        name.removeprefix("network."): value.float().cpu().numpy()
        for name, value in classifier.state_dict().items()
    }
    first_layer = next(value for value in weights.values() if value.ndim in {2, 4})
    for name, figure in (
        ("first_batch", plots.pairs(**vars(preview(params, train, class_names, SEEN)))),
        ("filters", plots.first_filters(first_layer, train.images.shape[1:])),
        ("weights", plots.weight_histograms(weights)),
    ):
        plots.save_figure(figure, folder / f"{name}.png")


def warnings(
    figures: dict[str, float], description: Description, train_images: int
) -> Iterator[str]:
    """Warnings about a model that was trained on so many images."""
    if figures["accuracy_low"] <= figures["majority_accuracy"]:
        yield (
            f"the model is not clearly better than always guessing the commonest class: accuracy "
            f"{figures['accuracy']:.2%}, at least {figures['accuracy_low']:.2%} with 99 % "
            f"confidence, against {figures['majority_accuracy']:.2%}. It has learnt next to "
            "nothing."
        )
    in_colour = len(description.image_shape) == 3
    if in_colour and not description.weights and train_images < FEW_PHOTOGRAPHS:
        yield (
            f"the network learnt from {train_images:,} photographs alone: a pretrained backbone "
            "would probably do better, by `imageclf use my_photos && dvc repro`"
        )


def _page(
    figures: dict[str, float],
    description: Description,
    table: "pd.DataFrame",
    warned: Sequence[str],
) -> str:
    shown = [
        (
            LABELS.get(name, name.replace("_", " ")),
            f"{value:.2%}" if "accuracy" in name else f"{value:,}",
        )
        for name, value in figures.items()
    ]
    return render(
        Path(__file__).with_name("report.html.j2"),
        warnings=warned,
        figures=shown,
        fingerprint=description.fingerprint,
        table=table,
    )
