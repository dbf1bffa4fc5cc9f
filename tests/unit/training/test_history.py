from dataclasses import asdict
from pathlib import Path

import pytest

from imageclf.files import UserError
from imageclf.tracking.gate import read_correct
from imageclf.training.history import MEASURED, read_history, write_history
from imageclf.training.loop import EpochResult

HEAD = ",".join(["epoch", *MEASURED])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    results = [EpochResult(n, 0.1, 2.3 / n, 0.1, float("inf"), 0.2, 1.0, 1.0) for n in (1, 2)]
    write_history(results, tmp_path / "history.csv")
    expected = [{name: asdict(each)[name] for name in ["epoch", *MEASURED]} for each in results]
    assert read_history(tmp_path / "history.csv") == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it has no column epoch"),
        (b"epoch\n1\n", "it has no column learning_rate"),
        (f"{HEAD}\n1,2\n".encode(), "a row has too few cells"),
        (f"{HEAD}\n1,1,1,1,1,one\n".encode(), "holds words instead of numbers"),
        (f"{HEAD}\n2,1,1,1,1,1\n".encode(), "does not count its epochs from 1"),
        (f"{HEAD}\n".encode(), "does not count its epochs from 1"),
        (f'{HEAD}\n"1,1,1,1,1,1\n'.encode(), "unexpected end of data"),
        (f"{HEAD}\n{'1' * 200_000}\n".encode(), "field larger than field limit"),
        (b"\xff\xfe", "codec can't decode"),
    ],
)
def test_what_is_no_history_is_refused_in_a_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(UserError, match=f"history.csv .*{reason}.*`dvc repro` again"):
        read_history(tmp_path / "history.csv")


def test_predictions_without_a_column_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("actual,predicted\ncat,cat\ndog,cat\n")
    assert read_correct(path) == (True, False)
    path.write_text("actual,foreseen\ncat,cat\n")
    with pytest.raises(UserError, match="it has no column predicted"):
        read_correct(path)
    path.unlink()
    with pytest.raises(UserError, match="is missing: run `dvc repro` to make it"):
        read_correct(path)
