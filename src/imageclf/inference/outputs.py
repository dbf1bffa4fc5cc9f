"""Predictions as a file, written one by one: a table (CSV, Parquet) or JSON lines."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from imageclf.files import UserError, atomic_path
from imageclf.inference.prediction import Prediction, likeliest
from imageclf.text import csv_cell

ROW_GROUP = 4096  # rows of a Parquet row group, which is collected in memory

Write = Callable[[Prediction], object]


def check_kind(path: Path) -> None:
    """Check that a file has one of the endings in ``KINDS``.

    Raises:
        UserError: it has none.
    """
    if path.suffix.lower() not in KINDS:
        raise UserError(f"{path}: the ending tells the kind: use {', '.join(KINDS)}")


@contextmanager
def predictions_file(target: Path, class_names: Sequence[str], top_k: int) -> Iterator[Write]:
    """A function that writes one prediction to a file, which appears whole or not at all.

    The ending of ``target`` is .csv, .parquet or .jsonl. A table has a row per image: ``image``,
    its path; ``class``, the most probable; ``probability``, of that class; ``p_CLASS`` for every
    class; and ``note``, see ``Prediction``. ``top_k`` is the number of classes in a line of JSON,
    see ``json_line``.
    """
    with (
        atomic_path(target) as temporary,
        KINDS[target.suffix.lower()](temporary, class_names, top_k) as write,
    ):
        yield write


def json_line(prediction: Prediction, class_names: Sequence[str], top_k: int) -> str:
    """An image and its ``top_k`` most probable classes as one line of JSON."""
    classes = likeliest(prediction.probabilities, class_names, top_k)
    predictions = [
        {"class": name, "probability": round(probability, 6)} for name, probability in classes
    ]
    told = {"image": str(prediction.path), "predictions": predictions, "note": prediction.note}
    return json.dumps(told)


@contextmanager
def _json_lines(path: Path, class_names: Sequence[str], top_k: int) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda prediction: file.write(json_line(prediction, class_names, top_k) + "\n")


@contextmanager
def _csv(path: Path, class_names: Sequence[str], _: int) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(csv_cell, _columns(class_names)))
        yield lambda prediction: writer.writerow(map(csv_cell, _row(prediction, class_names)))


@contextmanager
def _parquet(path: Path, class_names: Sequence[str], _: int) -> Iterator[Write]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    texts = ("image", "class", "note")
    schema = pa.schema(
        [(name, pa.string() if name in texts else pa.float32()) for name in _columns(class_names)]
    )
    rows: list[tuple[str | float, ...]] = []
    with ParquetWriter(path, schema) as writer:

        def flush() -> None:
            columns = zip(schema.types, zip(*rows, strict=True), strict=True)
            arrays = [pa.array(values, kind) for kind, values in columns]
            writer.write_table(pa.table(arrays, schema=schema))
            rows.clear()

        def write(prediction: Prediction) -> None:
            rows.append(_row(prediction, class_names))
            if len(rows) == ROW_GROUP:
                flush()

        yield write
        if rows:
            flush()


def _columns(class_names: Sequence[str]) -> list[str]:
    return ["image", "class", "probability", *(f"p_{name}" for name in class_names), "note"]


def _row(prediction: Prediction, class_names: Sequence[str]) -> tuple[str | float, ...]:
    shares = [round(share, 6) for share in prediction.probabilities.tolist()]
    best = int(prediction.probabilities.argmax())
    # The bytes of a file name may be no UTF-8.
    name = os.fsencode(prediction.path).decode(errors="replace")
    return (name, class_names[best], shares[best], *shares, prediction.note)


KINDS: dict[str, Callable[[Path, Sequence[str], int], AbstractContextManager[Write]]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".jsonl": _json_lines,
}
