"""The prepared folder, from IDX files and from images of the user's."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from helpers.images import photograph, save_photographs, write_idx
from helpers.params import make_params
from imageclf.data.decoding import decode
from imageclf.data.prepared import SPLITS, load_class_names, load_split, split_digest
from imageclf.data.shapes import as_stored
from imageclf.data.shards import JpegImages
from imageclf.files import UserError, read_json
from imageclf.preparation.blocks import Map
from imageclf.preparation.idx import read_idx
from imageclf.preparation.prepare import BLOCKS, prepare
from imageclf.preparation.splitting import origins
from imageclf.sections import Fitting
from imageclf.sources.image_folder import fetch_images
from imageclf.system.workers import start_workers

QUIET = Console(file=io.StringIO())
TINY = 0.0000001  # GB that the pixels of no data set fit into


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """200 random images of 8x8 in ten classes, no test split, fifty of them exact duplicates."""
    folder = tmp_path / "raw"
    folder.mkdir()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (200, 8, 8))
    images[150:] = images[:50]
    write_idx(folder / "images-idx3-ubyte", images)
    write_idx(folder / "labels-idx1-ubyte", np.arange(200) % 10)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, by its path there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with 20 photographs of each of two classes in ``photos``."""
    monkeypatch.chdir(tmp_path)
    names = [f"photos/{kind}/{i:02}.png" for kind in ("cat", "dog") for i in range(20)]
    save_photographs(tmp_path, *names)
    return tmp_path / "photos"


def prepared(raw: Path, name: str = "prepared", **changes: object) -> tuple[Path, pd.DataFrame]:
    target = raw.parent / name
    target.mkdir()
    settings = {"data__name": "digits", "transform__image_size": 8} | changes
    manifest, digests = prepare(make_params(**settings), raw, target)
    assert list(digests) == [split_digest(target, split) for split in SPLITS]
    return target, manifest


def prepared_photos(
    photos: Path,
    name: str = "prepared",
    console: Console = QUIET,
    mapped: Map = map,
    **changes: Any,
) -> tuple[Path, pd.DataFrame]:
    fetch_images(str(photos), Path("raw"), QUIET)
    target = Path(name)
    target.mkdir()
    settings = {"data__name": "image_folder", "data__source": "photos", "transform__image_size": 32}
    params = make_params(**(settings | changes))
    manifest, digests = prepare(params, Path("raw"), target, console, mapped)
    packed = [split for split in SPLITS if (target / f"{split}.labels.npy").exists()]
    assert list(digests) == [split_digest(target, split) for split in packed]
    return target, manifest


def test_splits_are_disjoint_complete_and_stratified(raw: Path) -> None:
    folder, manifest = prepared(raw)
    assert sorted(manifest["name"]) == sorted(f"[{i}]" for i in range(200))
    counts = pd.crosstab(manifest["split"], manifest["class"])
    assert counts.loc["test"].tolist() == [4] * 10
    assert counts.loc["val"].tolist() == [2] * 10
    for split in SPLITS:
        assert len(load_split(folder, split)) == counts.loc[split].sum()
    pd.testing.assert_frame_equal(manifest, pd.read_parquet(folder / "manifest.parquet"))


def test_images_stay_with_their_labels(raw: Path) -> None:
    folder, manifest = prepared(raw)
    originals = read_idx(raw / "images-idx3-ubyte")
    for split in SPLITS:
        part = load_split(folder, split)
        places = manifest.loc[manifest["split"] == split, "name"].str[1:-1].astype(int)
        assert (as_stored(part.images) == originals[places]).all()
        assert (part.labels == places.to_numpy() % 10).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(raw: Path) -> None:
    first, _ = prepared(raw, "first")
    again, _ = prepared(raw, "again")
    other, _ = prepared(raw, "other", seed=2)
    assert contents(first) == contents(again)
    assert split_digest(first, "val") != split_digest(other, "val")


def test_statistics_come_from_the_train_split_alone(raw: Path) -> None:
    folder, _ = prepared(raw)
    pixels = load_split(folder, "train").images / 255
    stats = read_json(folder / "stats.json")
    assert stats["mean"] == pytest.approx([pixels.mean()])
    assert stats["std"] == pytest.approx([pixels.std()])


def test_no_drawn_split_shares_an_image_with_another(raw: Path) -> None:
    _, manifest = prepared(raw)
    assert manifest["same_as"].nunique() == 150
    assert (manifest.groupby("same_as")["split"].nunique() == 1).all()


def test_images_of_another_side_are_resized(raw: Path) -> None:
    folder, _ = prepared(raw)
    bigger, _ = prepared(raw, "bigger", transform__image_size=16)
    small, large = load_split(folder, "train").images, load_split(bigger, "train").images
    assert large.shape == (140, 16, 16, 1)
    assert large.mean() == pytest.approx(small.mean(), rel=0.02)


def test_greys_can_be_repeated_as_rgb(raw: Path) -> None:
    grey, _ = prepared(raw)
    colour, _ = prepared(raw, "colour", transform__channels=3)
    expected = load_split(grey, "train").images.repeat(3, axis=3)
    assert (load_split(colour, "train").images == expected).all()
    assert len(read_json(colour / "stats.json")["mean"]) == 3


def test_class_names_stand_in_the_order_of_the_labels(raw: Path) -> None:
    folder, _ = prepared(raw)
    assert load_class_names(folder) == [str(digit) for digit in range(10)]


def test_raw_files_that_do_not_belong_together_are_refused(raw: Path) -> None:
    write_idx(raw / "labels-idx1-ubyte", np.arange(199) % 10)
    with pytest.raises(UserError, match="200 images but 199 labels"):
        prepared(raw)


def test_photographs_are_packed_as_the_decoder_gives_them(photos: Path) -> None:
    folder, manifest = prepared_photos(photos)
    assert load_class_names(folder) == ["cat", "dog"]
    for split in SPLITS:
        part, rows = load_split(folder, split), manifest[manifest["split"] == split]
        for image, label, name in zip(part.images, part.labels, rows["name"], strict=True):
            assert (image == decode(photos / name, (32, 32, 3), Fitting("crop"))).all()
            assert name.startswith(("cat", "dog")[label])
    stats = read_json(folder / "stats.json")
    scaled = load_split(folder, "train").images / 255
    assert stats["mean"] == pytest.approx(scaled.mean(axis=(0, 1, 2)))
    assert stats["std"] == pytest.approx(scaled.std(axis=(0, 1, 2)))
    assert stats["fit"] == "crop"
    assert {path.name for path in folder.iterdir()} == {
        *(f"{split}.{part}.npy" for split in SPLITS for part in ("images", "labels")),
        *("classes.json", "manifest.parquet", "stats.json"),
        *(f"{split}.shards" for split in SPLITS),
    }


@pytest.mark.parametrize("limit", [8.0, TINY])
def test_the_number_of_workers_and_of_blocks_changes_no_byte(
    photos: Path, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    (photos / "cat/03.png").write_bytes(b"no image")
    settings = {"transform__packed_limit_gb": limit}
    alone, _ = prepared_photos(photos, "alone", **settings)
    monkeypatch.setattr("imageclf.preparation.blocks.MOST_IMAGES", 3)
    with start_workers(3) as pool:
        three, _ = prepared_photos(photos, "three", mapped=pool.map, **settings)
    assert contents(alone) == contents(three)


def test_an_unreadable_file_is_in_the_manifest_and_in_no_split(photos: Path) -> None:
    broken = {"cat/05.png": b"", "dog/99.jpg": b"no image", "dog/00.JPG": b"version https://git"}
    for name, content in broken.items():
        (photos / name).write_bytes(content)
    folder, manifest = prepared_photos(photos)
    bad = manifest[manifest["verdict"] == "unreadable"]
    assert dict(zip(bad["name"], bad["note"], strict=True)) == {
        "cat/05.png": "the file is empty",
        "dog/00.JPG": "not an image, or of a format that is not supported",
        "dog/99.jpg": "not an image, or of a format that is not supported",
    }
    assert set(bad["split"]) == {""}
    assert sum(len(load_split(folder, split)) for split in SPLITS) == 39


def test_a_class_whose_images_are_all_unreadable_is_refused(photos: Path) -> None:
    save_photographs(photos, "train/cat/1.png", "train/cat/2.png", "train/cat/3.png")
    save_photographs(photos, "test/cat/4.png", "test/dog/5.png")
    (photos / "train/dog").mkdir()
    for name in ("6.png", "7.png"):
        (photos / "train/dog" / name).write_bytes(b"no image")
    for folder in ("cat", "dog"):
        for path in (photos / folder).iterdir():
            path.unlink()
        (photos / folder).rmdir()
    with pytest.raises(UserError, match="no image of the class dog in train can be read"):
        prepared_photos(photos, data__max_bad_fraction=0.9)


def test_where_too_much_is_unreadable_nothing_is_packed(photos: Path) -> None:
    for path in (photos / "cat").iterdir():
        path.write_bytes(b"no image")
    folder, manifest = prepared_photos(photos)
    assert (manifest["verdict"] == "unreadable").sum() == 20
    assert [path.name for path in folder.iterdir()] == ["classes.json"]


@pytest.mark.parametrize(
    ("channels", "colourful", "expected"),
    [("auto", True, 3), ("auto", False, 1), (1, True, 1), (3, False, 3)],
)
def test_channels_are_as_told_or_as_the_images_have_them(
    photos: Path, channels: object, colourful: bool, expected: int
) -> None:
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        if number or not colourful:
            photograph(number).convert("L").save(path)
    folder, _ = prepared_photos(photos, transform__channels=channels)
    assert load_split(folder, "train").images.shape[1:] == (32, 32, expected)


@pytest.mark.parametrize("limit", [8.0, TINY])
def test_a_near_copy_stays_with_its_original_in_blocks_of_either_kind(
    photos: Path, limit: float
) -> None:
    photograph(3).save(photos / "dog/copy.jpg", quality=92)
    _, manifest = prepared_photos(photos, transform__packed_limit_gb=limit)
    rows = manifest.set_index("name").loc[["cat/03.png", "dog/copy.jpg"]]
    assert rows["same_as"].tolist() == ["cat/03.png"] * 2
    assert rows["pixels_sha256"].nunique() == 2
    assert rows["split"].nunique() == 1
    assert manifest["same_as"].nunique() == len(manifest) - 1


def test_images_of_one_origin_stay_on_one_side(photos: Path) -> None:
    """Twenty images of each class come from five patients, whose number the name holds."""
    for path in sorted(photos.rglob("*.png")):
        path.rename(path.with_name(f"patient{int(path.stem) // 4}-{path.name}"))
    _, manifest = prepared_photos(photos, data__group_pattern=r"(\w+/patient\d+)-")
    origins = manifest.groupby(manifest["name"].str.partition("-")[0])["split"]
    assert (origins.nunique() == 1).all()
    assert set(manifest["split"]) == set(SPLITS)
    with pytest.raises(UserError, match="'visit' matches no name, such as cat/patient0-00.png"):
        prepared_photos(photos, "other", data__group_pattern="visit")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"subj(\d+)|p(\d+)", [0, 0, 2, 3, 4]),  # whichever alternative matched
        (r"(subj\d+)?_", [0, 0, 2, 3, 4]),  # what has no origin stands for itself
        (r"subj\d+", [0, 0, 2, 3, 4]),
    ],
)
def test_the_origin_is_what_matched(pattern: str, expected: list[int]) -> None:
    names = pd.Series(["a/subj1_a.png", "b/subj1_b.png", "a/p7_.png", "a/p8_.png", "b/p9_x.png"])
    assert origins(names, np.arange(len(names)), pattern).tolist() == expected


def test_a_match_of_nothing_is_no_origin() -> None:
    with pytest.raises(UserError, match="matches no name"):
        origins(pd.Series(["a/1.png", "b/2.png"]), np.arange(2), "x*")


def test_given_splits_are_kept_and_missing_ones_drawn_from_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"{i:02}.png" for i in range(60)]
    folders = ["Training/a", "Training/b", "validation/a", "validation/b"]
    save_photographs(tmp_path / "photos", *(f"{folders[int(n[:2]) % 4]}/{n}" for n in names))
    _, manifest = prepared_photos(tmp_path / "photos")
    given = manifest["name"].str.startswith("validation")
    assert (manifest.loc[given, "split"] == "val").all()
    assert set(manifest.loc[~given, "split"]) == {"train", "test"}


def test_pixels_that_are_too_many_are_kept_as_jpeg(photos: Path) -> None:
    packed, _ = prepared_photos(photos, "packed")
    folder, manifest = prepared_photos(photos, "shards", transform__packed_limit_gb=TINY)
    for split in SPLITS:
        part, expected = load_split(folder, split), load_split(packed, split)
        assert isinstance(part.images, JpegImages)
        assert np.load(folder / f"{split}.images.npy").shape == (0, 32, 32, 3)
        assert part.images.shape == expected.images.shape
        assert (part.labels == expected.labels).all()
        difference = np.abs(part.images[:].astype(int) - expected.images)
        assert 0 < difference.mean() < 2
    pd.testing.assert_frame_equal(manifest, pd.read_parquet(packed / "manifest.parquet"))
    # The statistics are those of what the training sees.
    stats, scaled = read_json(folder / "stats.json"), load_split(folder, "train").images[:] / 255
    assert stats["mean"] == pytest.approx(scaled.mean(axis=(0, 1, 2)))
    assert stats["std"] == pytest.approx(scaled.std(axis=(0, 1, 2)))


def test_greys_of_idx_files_can_be_kept_as_jpeg(raw: Path) -> None:
    packed, _ = prepared(raw)
    folder, _ = prepared(raw, "shards", transform__packed_limit_gb=TINY)
    part, expected = load_split(folder, "test"), load_split(packed, "test")
    assert isinstance(part.images, JpegImages)
    assert np.abs(part.images[:].astype(int) - expected.images).mean() < 10  # of noise


def blocks_of(photos: Path) -> Path:
    """The folder of the blocks that the last attempt left."""
    (folder,) = (photos.parent / BLOCKS).iterdir()
    return folder


@pytest.mark.parametrize("limit", [8.0, TINY])
def test_blocks_that_are_there_and_whole_are_not_made_again(
    photos: Path, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    monkeypatch.setattr("imageclf.preparation.blocks.MOST_IMAGES", 10)
    (photos / "cat/03.png").write_bytes(b"no image")
    expected, _ = prepared_photos(photos, "whole", transform__packed_limit_gb=limit)
    names = [f"{number:06}" for number in range(4)]
    blocks = blocks_of(photos)
    assert sorted(path.name for path in blocks.iterdir()) == sorted(
        [*names, *(f"{name}.json" for name in names)]
    )
    # Never begun; cut off; torn; one bit wrong; whole.
    (blocks / names[0]).unlink()
    (blocks / f"{names[0]}.json").unlink()
    os.truncate(blocks / names[1], 5000)
    os.truncate(blocks / f"{names[2]}.json", 5000)
    before = (blocks / names[3]).stat().st_mtime_ns
    said = io.StringIO()
    again, _ = prepared_photos(
        photos, "again", console=Console(file=said), transform__packed_limit_gb=limit
    )
    assert said.getvalue() == "carrying on: 30 of 40 files are done\n"
    assert contents(again) == contents(expected)
    assert (blocks / names[3]).stat().st_mtime_ns == before
    with (blocks / names[3]).open("r+b") as file:
        file.seek(700)
        value = file.read(1)[0]
        file.seek(700)
        file.write(bytes([value ^ 1]))
    healed, _ = prepared_photos(photos, "healed", transform__packed_limit_gb=limit)
    assert contents(healed) == contents(expected)


def test_blocks_of_other_images_or_parameters_are_removed(photos: Path) -> None:
    def work(name: str, **changes: Any) -> str:
        prepared_photos(photos, name, **changes)
        return blocks_of(photos).name

    first = work("first")
    assert work("again") == first
    # Neither the seed nor the splits are in them.
    assert work("seed", seed=2, transform__val_fraction=0.2) == first
    others = [
        work("side", transform__image_size=33),
        work("fit", transform__fit="stretch"),
        work("channels", transform__channels=1),
        work("jpeg", transform__packed_limit_gb=TINY),
    ]
    photograph(99).save(photos / "cat/03.png")
    others.append(work("image"))
    assert len({first, *others}) == 6
