"""`imageclf suspects` on real digits with wrong labels among them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.project import Project

SWAPPED = 60


@pytest.mark.slow
def test_swapped_labels_are_found_and_the_pipeline_stays_as_it_was(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.repro("embed")
    prepared = tmp_path / "data/prepared"
    manifest = pd.read_parquet(prepared / "manifest.parquet")
    names = manifest.loc[manifest["split"] == "train", "name"]
    right = np.load(prepared / "train.labels.npy")
    generator = np.random.default_rng(0)
    swapped = generator.choice(len(right), SWAPPED, replace=False)
    wrong = right.copy()
    wrong[swapped] = (right[swapped] + generator.integers(1, 10, SWAPPED)) % 10
    np.save(prepared / "train.labels.npy", wrong)

    output = project.run("imageclf", "suspects")
    found = pd.read_csv(tmp_path / "reports/suspects.csv", dtype=str)
    assert f"{len(found)} of 1,438 labels are disputed: reports/suspects.html" in output
    planted = dict(zip(names.iloc[swapped], right[swapped].astype(str), strict=True))
    hits = found[found["name"].isin(planted)]
    assert len(hits) >= 0.8 * SWAPPED
    assert len(hits) >= 0.8 * len(found)
    assert (hits["suggested"] == hits["name"].map(planted)).mean() > 0.9

    np.save(prepared / "train.labels.npy", right)
    assert project.repro("transform") == []
    assert "reports/" not in project.run("git", "status", "--porcelain")
