import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from imageclf.files import UserError
from imageclf.inference import outputs as prediction_files
from imageclf.inference.outputs import check_kind, predictions_file
from imageclf.inference.prediction import NOTE, Prediction

NAMES = ["cat", "dog, brown", "猫"]
COLUMNS = ["image", "class", "probability", "p_cat", "p_dog, brown", "p_猫", "note"]
PROBABILITIES = np.array([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75], [0.5, 0, 0.5]], np.float32)
NOTES = ["", NOTE, ""]
PATHS = ["a.jpg", 'my "pictures"/b c.png', "写真/c.png"]


def predictions() -> list[Prediction]:
    image = np.zeros((2, 2, 1), np.uint8)
    return [
        Prediction(Path(path), image, row, novelty)
        for path, row, novelty in zip(PATHS, PROBABILITIES, [0.5, 1.5, 1.0], strict=True)
    ]


def write(target: Path) -> None:
    with predictions_file(target, NAMES, top_k=2) as write_one:
        for prediction in predictions():
            write_one(prediction)


def test_a_csv_has_a_row_per_image_and_a_column_per_class(tmp_path: Path) -> None:
    write(tmp_path / "new/p.CSV")
    with (tmp_path / "new/p.CSV").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == COLUMNS
    assert [row[0] for row in rows] == PATHS
    assert [row[1] for row in rows] == ["dog, brown", "猫", "cat"]
    assert [float(row[2]) for row in rows] == [0.5, 0.75, 0.5]
    assert np.array([row[3:-1] for row in rows], np.float32).tolist() == PROBABILITIES.tolist()
    assert [row[-1] for row in rows] == NOTES


@pytest.mark.parametrize("group", [1, 2, 3, 4])
def test_a_parquet_file_holds_the_same_whatever_its_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr(prediction_files, "ROW_GROUP", group)
    write(tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == COLUMNS
    assert table["image"].to_pylist() == PATHS
    assert table["class"].to_pylist() == ["dog, brown", "猫", "cat"]
    shares = np.stack([table[name].to_numpy() for name in COLUMNS[3:-1]], axis=1)
    assert shares.dtype == np.float32
    assert (shares == PROBABILITIES).all()
    assert table["note"].to_pylist() == NOTES


def test_json_lines_tell_the_likeliest_classes(tmp_path: Path) -> None:
    write(tmp_path / "p.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == PATHS
    assert [line["note"] for line in lines] == NOTES
    assert lines[1]["predictions"] == [
        {"class": "猫", "probability": 0.75},
        {"class": "cat", "probability": 0.125},
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, kind: str) -> None:
    target = tmp_path / f"p.{kind}"
    target.write_text("before")
    with pytest.raises(RuntimeError), predictions_file(target, NAMES, 2) as write_one:
        write_one(predictions()[0])
        raise RuntimeError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_a_name_that_is_no_text_stops_nothing(tmp_path: Path, kind: str) -> None:
    odd = Prediction(
        Path(os.fsdecode(b"\xff.png")), np.zeros((2, 2, 1), np.uint8), PROBABILITIES[0]
    )
    with predictions_file(tmp_path / f"p.{kind}", NAMES, 2) as write_one:
        write_one(odd)
    assert (tmp_path / f"p.{kind}").stat().st_size > 30


def test_other_endings_are_refused() -> None:
    with pytest.raises(UserError, match=r"p.xlsx: the ending .* use .csv, .parquet, .jsonl"):
        check_kind(Path("p.xlsx"))
