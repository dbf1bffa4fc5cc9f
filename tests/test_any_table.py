"""Whatever the tables of earlier stages hold: they are read, or refused in one line."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from helpers.params import make_params
from helpers.watch import Watch, examples, little_memory, mutated
from imageclf.evaluation.comparison import read_answers
from imageclf.evaluation.suspects import load_labelled
from imageclf.files import UserError, write_json
from imageclf.tracking.gate import read_correct
from imageclf.training.history import MEASURED, read_history

EXAMPLES = 2500
IMAGES = 12
WORDS = [
    *(
        b",",
        b'"',
        b"\n",
        b"\r\n",
        b"\0",
        b"\xff",
        b"nan",
        b"inf",
        b"1e999",
        b"-1",
        b"0x1",
        b"1_0",
        b"",
    ),
    *(
        b"9" * 5000,
        b'""',
        b"'",
        b"actual",
        b"epoch",
        b"\xef\xbb\xbf",
        b"a" * 200_000,
        b"\xff\xff\xff\x7f",
    ),
]
HISTORY = "".join(
    f"{line}\n"
    for line in (",".join(["epoch", *MEASURED]), "1,0.1,2.3,0.1,2.2,0.2", "2,0.1,2.1,0.3,2.0,0.4")
).encode()
PREDICTIONS = (
    b"name,actual,predicted,probability,loss\n0,cat,cat,0.9,0.1\n1,dog,cat,0.8,2\n2,dog,dog,0.7,1\n"
)


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


def manifest() -> pd.DataFrame:
    splits = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    names = [f"cat/{number}.png" for number in range(IMAGES)]
    return pd.DataFrame(
        {"name": names, "split": splits, "class": "cat", "height": 8, "note": "", "same_as": names}
    )


def prepared(folder: Path) -> Path:
    """A prepared folder as transform leaves it, of two classes."""
    folder.mkdir()
    for split, count in (("train", 8), ("val", 2), ("test", 2)):
        np.save(folder / f"{split}.images.npy", np.zeros((count, 8, 8), np.uint8))
        np.save(folder / f"{split}.labels.npy", np.arange(count) % 2)
    write_json(folder / "classes.json", ["cat", "dog"])
    write_json(folder / "stats.json", {"mean": [0.5], "std": [0.2], "fit": "crop"})
    manifest().to_parquet(folder / "manifest.parquet", index=False)
    return folder


@dataclass
class Table:
    path: Path
    read: Callable[[Path], object]
    whole: list[bytes]


def parquet(**options: object) -> bytes:
    file = io.BytesIO()
    manifest().to_parquet(file, index=False, **options)
    return file.getvalue()


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Table]:
    folder = prepared(tmp_path / "prepared")
    kinds: list[bytes] = [parquet(compression=each) for each in ("snappy", "gzip", "zstd", "none")]
    return {
        "history": Table(tmp_path / "history.csv", read_history, [HISTORY]),
        "predictions": Table(tmp_path / "predictions.csv", read_correct, [PREDICTIONS]),
        "answers": Table(tmp_path / "predictions.csv", read_answers, [PREDICTIONS]),
        "manifest": Table(
            folder / "manifest.parquet",
            lambda path: load_labelled(make_params(), path.parent),
            kinds,
        ),
    }


def check(table: Table, content: bytes, watch: Watch) -> bool:
    """Whether the table is read."""
    table.path.write_bytes(content)
    with watch.nothing_starts(), little_memory():
        try:
            table.read(table.path)
        except UserError:
            return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["history", "predictions", "answers", "manifest"])
def test_mutated_tables_are_read_or_refused(
    name: str, tables: dict[str, Table], watch: Watch
) -> None:
    table = tables[name]
    for content in table.whole:
        assert check(table, content, watch)
    read = {True: 0, False: 0}

    @examples(EXAMPLES)
    @given(mutated(table.whole, WORDS))
    def attack(content: bytes) -> None:
        read[check(table, content, watch)] += 1

    attack()
    assert min(read.values()) > EXAMPLES / 500, read
