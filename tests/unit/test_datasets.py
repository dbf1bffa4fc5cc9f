from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imageclf.datasets import (
    SPLITS,
    load_class_names,
    load_split,
    pixel_stats,
    prepare,
    read_idx,
    split_digest,
    stratified_choice,
)
from imageclf.files import UserError, read_json
from support import make_params


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """200 random images of 8x8 in ten classes, no test split, two of them exact duplicates."""
    folder = tmp_path / "raw"
    folder.mkdir()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (200, 8, 8))
    images[150:] = images[:50]
    write_idx(folder / "images-idx3-ubyte", images)
    write_idx(folder / "labels-idx1-ubyte", np.arange(200) % 10)
    return folder


def prepared(raw: Path, name: str = "prepared", **changes: object) -> tuple[Path, dict]:
    target = raw.parent / name
    target.mkdir()
    settings = {"data__name": "digits", "transform__image_size": 8} | changes
    return target, prepare(make_params(**settings), raw, target)


def test_splits_are_disjoint_complete_and_stratified(raw: Path) -> None:
    folder, audit = prepared(raw)
    manifest = pd.read_parquet(folder / "manifest.parquet")
    assert sorted(manifest["name"]) == sorted(f"[{i}]" for i in range(200))
    assert audit["images"] == {"train": 140, "val": 20, "test": 40}
    for split in SPLITS:
        assert len(set(audit["class_balance"][split].values())) == 1
        assert len(load_split(folder, split)) == audit["images"][split]


def test_images_stay_with_their_labels(raw: Path) -> None:
    folder, _ = prepared(raw)
    originals = read_idx(raw / "images-idx3-ubyte")
    manifest = pd.read_parquet(folder / "manifest.parquet")
    for split in SPLITS:
        part = load_split(folder, split)
        places = manifest.loc[manifest["split"] == split, "name"].str[1:-1].astype(int)
        assert (part.images == originals[places]).all()
        assert (part.labels == places.to_numpy() % 10).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(raw: Path) -> None:
    first, _ = prepared(raw, "first")
    again, _ = prepared(raw, "again")
    other, _ = prepared(raw, "other", seed=2)
    for path in first.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    assert split_digest(first, "val") != split_digest(other, "val")
    assert read_json(first / "digests.json")["val"] == split_digest(first, "val")


def test_statistics_come_from_the_train_split_alone(raw: Path) -> None:
    folder, _ = prepared(raw)
    pixels = load_split(folder, "train").images / 255
    stats = read_json(folder / "stats.json")
    assert stats["mean"] == pytest.approx([pixels.mean()])
    assert stats["std"] == pytest.approx([pixels.std()])


def test_statistics_of_colour_images_are_per_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    stats = pixel_stats(images)
    assert stats["mean"] == pytest.approx((images / 255).mean(axis=(0, 1, 2)))
    assert stats["std"] == pytest.approx((images / 255).std(axis=(0, 1, 2)))


def test_duplicates_are_counted_within_and_across_splits(raw: Path) -> None:
    folder, audit = prepared(raw)
    originals = read_idx(raw / "images-idx3-ubyte").reshape(200, -1)
    manifest = pd.read_parquet(folder / "manifest.parquet")
    place = {
        int(name[1:-1]): split
        for name, split in zip(manifest["name"], manifest["split"], strict=True)
    }
    pairs = [(place[i], place[i + 150]) for i in range(50)]
    assert (originals[150:] == originals[:50]).all()
    assert audit["repeats"] == {s: sum(a == b == s for a, b in pairs) for s in SPLITS}
    for leak in audit["leaks"]:
        assert leak["images"] == sum(set(pair) == set(leak["splits"]) for pair in pairs)
        assert leak["with_another_label"] == 0


def test_images_of_another_side_are_resized(raw: Path) -> None:
    folder, _ = prepared(raw)
    bigger, _ = prepared(raw, "bigger", transform__image_size=16)
    small, large = load_split(folder, "train").images, load_split(bigger, "train").images
    assert large.shape == (140, 16, 16)
    assert large.mean() == pytest.approx(small.mean(), rel=0.02)


def test_class_names_stand_in_the_order_of_the_labels(raw: Path) -> None:
    folder, _ = prepared(raw)
    assert load_class_names(folder) == [str(digit) for digit in range(10)]


def test_a_choice_takes_the_fraction_of_every_class_and_at_least_one() -> None:
    labels = np.array([0] * 100 + [1] * 10 + [2] * 2)
    chosen = stratified_choice(labels, 0.1, np.random.default_rng(0))
    assert np.bincount(labels[chosen]).tolist() == [10, 1, 1]
    with pytest.raises(UserError, match="class 3 has a single image"):
        stratified_choice(np.array([0, 0, 3]), 0.5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"\x1f\x8b\x08\x00", "not an IDX file"),
        (b"\0\0\x08\1\0\0\0\5ab", "truncated"),
    ],
)
def test_a_broken_idx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_idx(tmp_path / "broken")


def test_raw_files_that_do_not_belong_together_are_refused(raw: Path) -> None:
    write_idx(raw / "labels-idx1-ubyte", np.arange(199) % 10)
    with pytest.raises(UserError, match="200 images but 199 labels"):
        prepared(raw)


def test_a_split_that_is_missing_or_torn_is_refused(raw: Path) -> None:
    folder, _ = prepared(raw)
    np.save(folder / "val.labels.npy", np.zeros(3, dtype=np.int64))
    with pytest.raises(UserError, match="do not match"):
        load_split(folder, "val")
    (folder / "train.images.npy").write_bytes(b"half")
    with pytest.raises(UserError, match="unreadable"):
        load_split(folder, "train")
