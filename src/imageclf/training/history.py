"""reports/history.csv: the results of each epoch."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imageclf.files import UserError, read_csv, write_text

MEASURED = ["learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
# Times and speeds differ from run to run: they go to MLflow, but into no cached file.
TRACKED = [*MEASURED, "seconds", "images_per_second"]


def write_history(history: Iterable[Any], path: Path) -> None:
    """Write one row per epoch, from its ``loop.EpochResult``."""
    table = io.StringIO()
    columns = ["epoch", *MEASURED]
    writer = csv.DictWriter(table, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, history))
    write_text(path, table.getvalue())


def read_history(path: Path) -> list[dict[str, float]]:
    """A row per epoch, with ``epoch`` and all of ``MEASURED``.

    Raises:
        UserError: the file is missing, or holds something else.
    """
    columns = ["epoch", *MEASURED]
    rows = read_csv(path, columns)
    try:
        history = [dict(zip(columns, map(float, row), strict=True)) for row in rows]
    except ValueError:
        raise UserError(f"{path} holds words instead of numbers: run `dvc repro` again") from None
    if not history or [row["epoch"] for row in history] != list(range(1, len(history) + 1)):
        raise UserError(f"{path} does not count its epochs from 1: run `dvc repro` again")
    return history
