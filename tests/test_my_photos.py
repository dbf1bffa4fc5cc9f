"""A folder of real photographs that nobody prepared becomes a registered classifier."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.project import STAGES, Project
from helpers.real_data import REAL_DATA, needs
from imageclf.data.prepared import load_split
from imageclf.files import read_json

BAD = REAL_DATA / "bad_inputs"
DEEP = "more than 89,478,485 pixels, too many to unpack safely"
POINTER = "a Git LFS pointer instead of the image: run `git lfs pull`"
SHORT = "cut short: the end of the file is missing"
OTHER = "damaged, or a kind of PNG that is not supported"
UNREADABLE = {
    "broken.png": OTHER,
    "decompression_bomb.gif": DEEP,
    "gitlfs_pointer_cloudy1.jpg": POINTER,
    "gitlfs_pointer_cloudy100.jpg": POINTER,
    "l2rgb_read.bmp": DEEP,
    "truncated_image.png": SHORT,
    "truncated_jpeg.jpg": SHORT,
    "ultrahdr.jpg": SHORT,
    "unknown_compression_method.png": OTHER,
}
# What has to be done to them; nothing is wrong with the rest of the odd ones but their metadata.
CONVERTED = {
    "exif_imagemagick_orientation.png": "turned upright",
    "hopper_bad_exif.jpg": "grey to RGB",
    "hymenoptera_imageNotFound.gif": "palette looked up",
    "pil123p.png": "palette looked up, transparency over white",
    "pil_sample_cmyk.jpg": "CMYK to RGB",
    **{
        f"{scene}_{orientation}.jpg": "turned upright"
        for scene in ("Landscape", "Portrait")
        for orientation in range(2, 9)
    },
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs("bad_inputs", "flowers")
def test_flowers_with_every_bad_input_among_them(tmp_path: Path) -> None:
    photos = tmp_path / "my photos"
    shutil.copytree(REAL_DATA / "flowers", photos)
    classes = sorted(path.name for path in photos.iterdir())
    bad = sorted(BAD.glob("*/*"))
    for number, path in enumerate(bad):
        shutil.copy(path, photos / classes[number % 5] / path.name)
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    project.run("imageclf", "use", "my_photos")
    project.set("data.source", str(photos))
    project.set("train.epochs", "2")
    assert project.repro() == [*STAGES]

    (version,) = project.client().search_model_versions()
    assert version.name == "my-photos"
    prepared = project.folder / "data/prepared"
    manifest = pd.read_parquet(prepared / "manifest.parquet")
    manifest["file"] = manifest["name"].str.rpartition("/")[2]
    table = manifest.set_index("file").loc[[path.name for path in bad]]
    told = dict(zip(table.index, zip(table["verdict"], table["note"], strict=True), strict=True))
    assert told == {
        path.name: ("unreadable", UNREADABLE[path.name])
        if path.parent.name == "unreadable"
        else ("converted", CONVERTED[path.name])
        if path.name in CONVERTED
        else ("ok", "")
        for path in bad
    }
    page = (project.folder / "reports/data.html").read_text()
    assert all(f"/{name}</td><td>{reason}</td>" in page for name, reason in UNREADABLE.items())
    assert all(f"<b>{note}</b>" in page for note in CONVERTED.values())
    for scene in ("Landscape", "Portrait"):
        assert_upright(prepared, manifest, scene)

    output = project.run("imageclf", "predict", str(photos), "--output", "p.csv", check=False)
    assert "error: 9 of 237 images could not be read\n" in output
    assert len(pd.read_csv(project.folder / "p.csv")) == 228
    metrics = read_json(project.folder / "reports/metrics.json")
    assert metrics["images"] == int((manifest["split"] == "test").sum())


def assert_upright(prepared: Path, manifest: pd.DataFrame, scene: str) -> None:
    """That the nine files of a scene are one picture, but for JPEG noise and a digit in it."""
    (split,) = set(manifest.loc[manifest["file"].str.startswith(scene), "split"])
    rows = manifest[manifest["split"] == split].reset_index(drop=True)
    images = load_split(prepared, split).images[rows.index[rows["file"].str.startswith(scene)]]
    pictures = np.asarray(images, dtype=float)
    assert len(pictures) == 9
    assert np.abs(pictures - pictures[1]).mean(axis=(1, 2, 3)).max() < 2
    for wrong in (pictures[1][::-1], pictures[1][:, ::-1], pictures[1][::-1, ::-1]):
        assert np.abs(pictures - wrong).mean(axis=(1, 2, 3)).min() > 10
