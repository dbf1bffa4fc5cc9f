"""reports/history.csv: the results of each epoch."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from imageclf.files import write_text

if TYPE_CHECKING:
    from imageclf.training.loop import EpochResult

MEASURED = ["learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
# Times and speeds differ from run to run: they go to MLflow, but into no cached file.
TRACKED = [*MEASURED, "seconds", "images_per_second"]


def write_history(history: "Iterable[EpochResult]", path: Path) -> None:
    """Write one row per epoch."""
    table = io.StringIO()
    columns = ["epoch", *MEASURED]
    writer = csv.DictWriter(table, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, history))
    write_text(path, table.getvalue())
