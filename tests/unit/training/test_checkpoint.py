from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from imageclf.files import UserError, file_errors_told
from imageclf.training.checkpoint import Checkpoints

MINE, OTHER = "a" * 64, "b" * 64


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(MINE, 5, tmp_path)
    assert checkpoints.load() is None
    checkpoints.save({"weights": torch.arange(3), "epoch": 1})
    checkpoints.save({"weights": torch.arange(3) * 2, "epoch": 2})
    state = Checkpoints(MINE, 5, tmp_path).load()
    assert state is not None
    assert state["epoch"] == 2
    assert state["weights"].tolist() == [0, 2, 4]


def test_a_checkpoint_of_another_model_is_never_loaded(tmp_path: Path) -> None:
    Checkpoints(OTHER, 5, tmp_path).save({"epoch": 1})
    checkpoints = Checkpoints(MINE, 5, tmp_path)
    assert checkpoints.load() is None
    checkpoints.save({"epoch": 2})
    (tmp_path / "trained.json").write_text("{}")
    checkpoints.clear_others()
    assert sorted(path.name for path in tmp_path.iterdir()) == [MINE, "trained.json"]
    checkpoints.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["trained.json"]


def test_a_torn_write_leaves_the_last_whole_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(MINE, 5, tmp_path)
    checkpoints.save({"epoch": 1})
    (tmp_path / MINE / ".latest.pt.tmp").write_bytes(b"half")
    assert checkpoints.load() == {"epoch": 1}


def test_a_full_disk_is_told_and_leaves_the_last_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(MINE, 5, tmp_path)
    checkpoints.save({"epoch": 1})

    @contextmanager
    def full_disk(_: Path) -> Iterator[BinaryIO]:
        with Path("/dev/full").open("wb") as file:
            yield file

    monkeypatch.setattr("imageclf.training.checkpoint.atomic_writer", full_disk)
    with pytest.raises(UserError, match="the disk is full"), file_errors_told():
        checkpoints.save({"weights": torch.zeros(1_000_000)})
    assert checkpoints.load() == {"epoch": 1}


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / MINE).mkdir()
    (tmp_path / MINE / "latest.pt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="unreadable.*delete it"):
        Checkpoints(MINE, 5, tmp_path).load()


def test_it_is_due_after_its_minutes(tmp_path: Path) -> None:
    assert Checkpoints(MINE, 1e-9, tmp_path).is_due()
    assert not Checkpoints(MINE, 5, tmp_path).is_due()
