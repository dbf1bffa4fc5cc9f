from pathlib import Path

import numpy as np
import pytest

from imageclf.data.prepared import load_split, pixel_counts, split_digest, stats_of
from imageclf.files import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prepared folder with a val and a test split of the same images."""
    for name in ("val", "test"):
        np.save(tmp_path / f"{name}.images.npy", np.arange(5 * 16, dtype=np.uint8).reshape(5, 4, 4))
        np.save(tmp_path / f"{name}.labels.npy", np.arange(5))
    return tmp_path


def test_a_split_is_mapped_and_not_read(folder: Path) -> None:
    split = load_split(folder, "val")
    assert isinstance(split.images, np.memmap)
    assert (len(split), split.images.shape, split.labels.tolist()) == (
        5,
        (5, 4, 4, 1),
        [0, 1, 2, 3, 4],
    )


def test_a_digest_tells_of_images_and_labels(folder: Path) -> None:
    assert split_digest(folder, "val") == split_digest(folder, "test")
    np.save(folder / "val.labels.npy", np.zeros(5, dtype=np.int64))
    assert split_digest(folder, "val") != split_digest(folder, "test")


@pytest.mark.parametrize("shape", [(5, 4, 4, 1), (5, 4, 6, 3), (1, 1, 2, 1)])
def test_statistics_are_per_channel(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    scaled = images.reshape(-1, shape[3]) / 255
    stats = stats_of(pixel_counts(images))
    assert stats["mean"] == pytest.approx(scaled.mean(axis=0))
    assert stats["std"] == pytest.approx(scaled.std(axis=0))


def test_a_split_that_is_missing_or_torn_is_refused(folder: Path) -> None:
    np.save(folder / "val.labels.npy", np.zeros(3, dtype=np.int64))
    with pytest.raises(UserError, match="do not match"):
        load_split(folder, "val")
    (folder / "test.images.npy").write_bytes(b"half")
    for name in ("test", "train"):
        with pytest.raises(UserError, match="unreadable"):
            load_split(folder, name)


def test_a_channel_of_one_value_is_divided_by_one() -> None:
    images = np.zeros((3, 2, 2, 3), np.uint8)
    images[..., 1], images[0, 0, 0, 2] = 7, 255
    found = stats_of(pixel_counts(images))
    assert found["std"][:2] == [1.0, 1.0]
    assert found["mean"][:2] == [0.0, 7 / 255]
    assert found["std"][2] == pytest.approx(np.sqrt(11) / 12)
