"""The suspects as a page with pictures, a table and figures: ``reports/suspects.*``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imageclf.drawing.html import render
from imageclf.evaluation.suspects import Labelled, Probabilities, suspects_table, typical
from imageclf.files import read_json, write_json, write_text
from imageclf.preparation.audit_page import Album
from imageclf.text import csv_cells
from imageclf.training.begin import SPLITS

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 200  # suspects on the page
PAGE, TABLE, FIGURES = "suspects.html", "suspects.csv", "suspects.json"


def write_suspects(
    folder: Path, prepared: Path, labelled: Labelled, probabilities: Probabilities, folds: int
) -> dict[str, Any]:
    """Write ``suspects.csv``, ``suspects.html``, and last ``suspects.json``; return its figures.

    ``probabilities`` (float32, N x classes) are of networks that did not see the image. The figure
    ``accuracy`` is the share of labels that they agree with, ``majority`` that of the commonest
    class.
    """
    labels = labelled.images.labels
    digests = read_json(prepared / "digests.json")
    table = suspects_table(labelled, probabilities)
    found = {
        "images": len(labels),
        "suspects": len(table),
        "folds": folds,
        "accuracy": round(float((probabilities.argmax(axis=1) == labels).mean()), 4),
        "majority": round(float(np.bincount(labels).max() / len(labels)), 4),
        "pairs": _pairs(table),
        "data": {split: digests[split] for split in SPLITS},
    }
    album = Album(prepared, labelled.rows)
    shown, examples = table.head(SHOWN), typical(labelled, probabilities)
    page = render(
        Path(__file__).with_name("suspects.html.j2"),
        found=found,
        suspects=list(zip(shown.itertuples(), album.pictures(shown["name"]), strict=True)),
        typical=dict(zip(examples, album.pictures(examples.values()), strict=True)),
        table=TABLE,
    )
    write_text(folder / TABLE, csv_cells(table).to_csv(index=False))
    write_text(folder / PAGE, page)
    write_json(folder / FIGURES, found)
    return found


def _pairs(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """How often each class is suggested for each label, the most frequent first."""
    counts = table.groupby(["label", "suggested"]).size().sort_values(ascending=False)
    pairs: list[dict[str, Any]] = counts.rename("images").reset_index().to_dict(orient="records")
    return pairs
