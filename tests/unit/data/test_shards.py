"""Images as JPEG in shards: the same whatever the key, and damage is told."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.images import photograph, sharded
from imageclf.data.prepared import Labels, Pixels, load_split
from imageclf.data.shards import JpegImages, from_jpeg, shard_path, to_jpeg, write_shards
from imageclf.files import UserError


def pictures(count: int, mode: str = "RGB") -> Pixels:
    images = (np.asarray(photograph(seed, 24, 20).convert(mode)) for seed in range(count))
    return np.stack([np.atleast_3d(image) for image in images])


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_keeps_an_image_but_for_a_few_levels(mode: str) -> None:
    for image in pictures(5, mode):
        again = from_jpeg(to_jpeg(image), image.shape)
        assert np.abs(again.astype(int) - image).mean() < 3


@pytest.mark.parametrize("key", [3, slice(2, 5), slice(None, None, 3), np.array([6, 0, 6]), -1])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_any_key_gives_what_an_array_would(tmp_path: Path, key: Any, mode: str) -> None:
    images = pictures(7, mode)
    write_shards(map(to_jpeg, images), tmp_path)
    stored = JpegImages(tmp_path, images.shape[1:])
    expected = np.stack([from_jpeg(to_jpeg(image), image.shape) for image in images])
    assert (len(stored), stored.shape) == (7, images.shape)
    assert np.array_equal(stored[key], expected[key])


def test_shards_are_bounded_and_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [bytes([number]) * 40 for number in range(5)]
    monkeypatch.setattr("imageclf.data.shards.SHARD", 100)
    write_shards(contents, tmp_path)
    assert [shard_path(tmp_path, number).stat().st_size for number in range(3)] == [80, 80, 40]
    index = np.load(tmp_path / "index.npy").tolist()
    assert index == [[0, 0, 40], [0, 40, 40], [1, 0, 40], [1, 40, 40], [2, 0, 40]]


def test_no_image_of_another_process_is_sent_to_it(tmp_path: Path) -> None:
    images = pictures(7)
    write_shards(map(to_jpeg, images), tmp_path)
    sent = pickle.dumps(JpegImages(tmp_path, images.shape[1:]))
    assert len(sent) < 300
    assert np.array_equal(pickle.loads(sent)[2], JpegImages(tmp_path, images.shape[1:])[2])


@pytest.mark.parametrize("damage", ["missing", "cut", "overwritten"])
def test_a_damaged_shard_is_named(tmp_path: Path, damage: str) -> None:
    write_shards(map(to_jpeg, pictures(3)), tmp_path)
    shard = shard_path(tmp_path, 0)
    if damage == "missing":
        shard.unlink()
    else:
        whole = shard.read_bytes()
        shard.write_bytes(whole[:-50] if damage == "cut" else bytes(len(whole)))
    with pytest.raises(UserError, match=r"000000.jpegs is damaged .*: run `dvc repro`"):
        JpegImages(tmp_path, (20, 24, 3))[:]


def test_a_split_in_shards_has_an_array_of_none(tmp_path: Path) -> None:
    labels: Labels = np.arange(6) % 2
    split = sharded(tmp_path, "val", pictures(6), labels)
    assert split.images.shape == (6, 20, 24, 3)
    np.save(tmp_path / "val.labels.npy", labels[:5])
    with pytest.raises(UserError, match="do not match"):
        load_split(tmp_path, "val")
