import pandas as pd
import pytest

from helpers.params import make_params
from imageclf.preparation.audit import audit, passed_limit, remarks, too_many

COLUMNS = ["name", "split", "class", "pixels_sha256", "same_as", "verdict", "note"]
ROWS = [
    ("a", "train", "cat", "1", "a", "ok", ""),
    ("b", "train", "cat", "1", "a", "ok", ""),
    ("c", "train", "dog", "2", "c", "converted", "CMYK to RGB"),
    ("d", "val", "dog", "3", "c", "converted", "CMYK to RGB"),
    ("e", "test", "dog", "1", "a", "ok", ""),
    ("f", "test", "cat", "4", "a", "converted", "turned upright"),
    ("g", "test", "cat", "5", "g", "ok", ""),
    ("h", "", "dog", "", "", "unreadable", "the file is empty"),
]
NOTHING = {"count": 0, "examples": []}
SOURCE = {"images": 8}


@pytest.fixture
def manifest() -> pd.DataFrame:
    sizes = {"height": [10, 20, 30, 40, 50, 60, 70, 0], "width": [5] * 7 + [0]}
    return pd.DataFrame(ROWS, columns=COLUMNS).assign(**sizes)


def test_everything_is_counted(manifest: pd.DataFrame) -> None:
    found = audit(manifest, ["cat", "dog", "cow"], SOURCE)
    leaks = found.pop("leaks")
    assert found == {
        "images": {"train": 3, "val": 1, "test": 3},
        "class_balance": {
            "train": {"cat": 2, "dog": 1, "cow": 0},
            "val": {"cat": 0, "dog": 1, "cow": 0},
            "test": {"cat": 2, "dog": 1, "cow": 0},
        },
        "sizes": {
            "height": {"min": 10, "median": 40, "max": 70},
            "width": {"min": 5, "median": 5, "max": 5},
        },
        "unreadable": {
            "images": 1,
            "of": 8,
            "fraction": 0.125,
            "files": [{"name": "h", "reason": "the file is empty"}],
        },
        "converted": {"CMYK to RGB": 2, "turned upright": 1},
        "left_out": NOTHING,
        "repeats": {"train": 1, "val": 0, "test": 1},
        "contradictions": {"images": 4, "identical": 3, "sets": [["a", "b", "e", "f"]]},
    }
    assert [(leak["splits"], leak["images"], leak["identical"]) for leak in leaks] == [
        (["train", "val"], 1, 0),
        (["train", "test"], 2, 1),
        (["val", "test"], 0, 0),
    ]
    assert leaks[1]["with_another_label"] == 1
    assert leaks[1]["fraction"] == 0.6667
    assert leaks[1]["examples"][0] == {
        "name_test": "e",
        "class_test": "dog",
        "name_train": "a",
        "class_train": "cat",
    }


def test_what_is_worth_a_look_is_told_in_a_line_each(manifest: pd.DataFrame) -> None:
    left_out = {"count": 2, "examples": []}
    assert list(remarks(audit(manifest, ["cat", "dog"], {"left_out": left_out}))) == [
        ("1 unreadable file, left out", "unreadable"),
        ("2 other files of the source, left out", "left-out"),
        (
            "1 image of val (100.0%) also stands in train: 0 equal, 1 nearly equal (0 with another "
            "label)",
            "leaks",
        ),
        (
            "2 images of test (66.7%) also stand in train: 1 equal, 1 nearly equal (1 with another "
            "label)",
            "leaks",
        ),
        ("4 images stand in several classes: 3 equal, 1 nearly equal", "contradictions"),
        ("train: 1 image is equal to another one of the split, or nearly", "repeats"),
        ("test: 1 image is equal to another one of the split, or nearly", "repeats"),
        ("3 images converted", "converted"),
    ]
    assert not list(remarks(audit(manifest[manifest["name"] == "g"], ["cat", "dog"], SOURCE)))


@pytest.mark.parametrize(
    ("bad", "leak", "problem"),
    [
        (0.125, 0.9, ""),
        (0.1, 0.9, "1 unreadable file (12.5%), more than data.max_bad_fraction"),
        (0.125, 0.3, "1 image of test (33.3%) is equal to one of train, more than data.max_leak"),
    ],
)
def test_limits_are_the_last_share_that_is_allowed(
    manifest: pd.DataFrame, bad: float, leak: float, problem: str
) -> None:
    if leak == 0.9:
        manifest = manifest[~manifest["name"].isin(["d"])]
        manifest = pd.concat([manifest, manifest[manifest["name"] == "g"].assign(name="i")])
    data = make_params(data__max_bad_fraction=bad, data__max_leak_fraction=leak).data
    told = passed_limit(audit(manifest, ["cat", "dog"], SOURCE), data)
    assert told.startswith(problem) if problem else told == ""


def test_near_duplicates_are_told_and_stop_nothing(manifest: pd.DataFrame) -> None:
    near = manifest[manifest["name"].isin(["a", "c", "d", "f"])]
    found = audit(near, ["cat", "dog"], SOURCE)
    assert [(leak["fraction"], leak["identical"]) for leak in found["leaks"]][:2] == [
        (1, 0),
        (1, 0),
    ]
    data = make_params(data__max_bad_fraction=0.0, data__max_leak_fraction=0.0).data
    assert passed_limit(found, data) == ""
    equal = near.assign(pixels_sha256=near["same_as"])
    told = passed_limit(audit(equal, ["cat", "dog"], SOURCE), data)
    assert told.startswith("1 image of val (100.0%) is equal to one of train, more than data.max")


def test_limits_count_images_and_round_nothing(manifest: pd.DataFrame) -> None:
    clean = manifest[manifest["name"].isin(["a", "c", "g", "h"])]
    found = audit(clean, ["cat", "dog"], {"images": 30_000})  # most are of no split
    data = make_params(data__max_bad_fraction=0.0, data__max_leak_fraction=0.9).data
    assert found["unreadable"]["fraction"] == 0.0
    assert passed_limit(found, data).startswith("1 unreadable file (0.0%), more than")
    assert not too_many(3, 10, 0.3)  # though 1 - 0.7 is more than 0.3


def test_what_no_split_could_be_drawn_from_is_told_too(manifest: pd.DataFrame) -> None:
    found = audit(manifest.assign(split="", verdict="unreadable"), ["cat", "dog"], SOURCE)
    assert found["unreadable"]["fraction"] == 1
    assert found["images"] == {"train": 0, "val": 0, "test": 0}
    assert found["sizes"] == {"height": {}, "width": {}}
