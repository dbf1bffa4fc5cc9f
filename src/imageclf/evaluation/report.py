"""The evaluation report: one page that needs nothing beside it, tables, and pictures for DVC."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from imageclf.data.prepared import Split
from imageclf.drawing import plots
from imageclf.evaluation.metrics import per_class_table, predictions_table, worst_first
from imageclf.evaluation.report_page import Inside, Report, report_page
from imageclf.evaluation.verdict import warnings
from imageclf.files import write_json, write_text
from imageclf.network.classifier import Classifier
from imageclf.params import Params
from imageclf.project.folder import WARNINGS
from imageclf.text import csv_cells
from imageclf.training.preview import SEEN, preview


def look_inside(
    classifier: Classifier, params: Params, train: Split, class_names: Sequence[str]
) -> Inside:
    """What the network saw first, and the weights that it learnt."""
    weights = {
        name.removeprefix("network."): value.float().cpu().numpy()
        for name, value in classifier.state_dict().items()
    }
    return Inside(preview(params, train, class_names, SEEN), weights, train.images.shape[1:])


def write_report(folder: Path, report: Report) -> list[str]:
    """Write ``index.html``, pictures, two tables and ``warnings.json``; return the warnings."""
    _draw(folder, report)
    write_tables(folder, report)
    warned = list(warnings(report.evidence))
    write_json(folder / WARNINGS.name, warned)
    write_text(folder / "index.html", report_page(report, warned))
    return warned


def write_tables(folder: Path, report: Report) -> None:
    """Write ``per_class.csv`` and ``predictions.csv``."""
    names = report.evidence.description.class_names
    table = per_class_table(report.predictions, names)
    csv_cells(table).to_csv(folder / "per_class.csv", index=False)
    each = predictions_table(report.predictions, names, report.rows.names)
    csv_cells(each).to_csv(folder / "predictions.csv", index=False)


def _draw(folder: Path, report: Report) -> None:
    """The pictures that dvc.yaml names under ``plots``."""
    names = np.array(report.evidence.description.class_names)
    predictions, inside = report.predictions, report.inside
    order = worst_first(predictions)
    chosen = [number for number, _ in report.gallery.distinct(order, report.pictures)]
    grid = plots.image_grid(
        report.test.images[chosen],
        names[predictions.predicted[chosen]].tolist(),
        names[predictions.labels[chosen]].tolist(),
        predictions.confidence[chosen],
        f"The {len(chosen)} test images with the highest loss",
    )
    for name, figure in (
        ("loss", plots.loss_curves(pd.DataFrame(report.evidence.history))),
        ("mistakes", grid),
        ("first_batch", plots.pairs(**vars(inside.preview))),
        ("filters", plots.first_filters(inside.first_layer, inside.image_shape)),
        ("weights", plots.weight_histograms(inside.weights)),
    ):
        plots.save_figure(figure, folder / f"{name}.png")
