"""What a user should know of the data, as the JSON values of ``reports/data.json``."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imageclf.data.prepared import SPLITS
from imageclf.sections import Data

if TYPE_CHECKING:
    import pandas as pd

LISTED = 1000  # of a kind, at most
NOTHING_LEFT_OUT = {"count": 0, "examples": []}
PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))


def audit(
    manifest: "pd.DataFrame", class_names: Sequence[str], source: Mapping[str, Any]
) -> dict[str, Any]:
    """Counts, class balance, sizes, unreadable files, conversions and duplicates.

    ``source`` is what source.json of the raw folder tells of it: the number of its images, of which
    ``transform.train_per_class`` may have left some out, and the files that are none.

    Images are the same when ``same_as`` in the manifest says so: they are equal, pixel for pixel as
    prepared, or nearly so. ``repeats`` counts, within a split, the images that stand there a second
    or further time; ``leaks`` counts, for two splits, the images of the second that also stand in
    the first, how many of them are identical, that is equal to one there, and how many carry
    another label there; ``contradictions`` counts those that also stand in another class.
    """
    import pandas as pd

    readable = manifest[manifest["verdict"] != "unreadable"]
    classes = pd.Categorical(readable["class"], categories=class_names)
    balance = pd.crosstab(pd.Categorical(readable["split"], SPLITS), classes, dropna=False)
    return {
        "images": {split: int((readable["split"] == split).sum()) for split in SPLITS},
        "class_balance": {
            split: {name: int(balance.at[split, name]) for name in class_names} for split in SPLITS
        },
        "sizes": {side: _spread(readable[side]) for side in ("height", "width")},
        "unreadable": _unreadable(manifest, source.get("images", len(manifest))),
        "converted": dict(Counter(readable["note"][readable["note"] != ""]).most_common()),
        "left_out": source.get("left_out", NOTHING_LEFT_OUT),
        "repeats": {
            split: int(readable.loc[readable["split"] == split, "same_as"].duplicated().sum())
            for split in SPLITS
        },
        "leaks": [_leak(readable, first, second) for first, second in PAIRS],
        "contradictions": _contradictions(readable),
    }


def too_many(count: int, images: int, limit: float) -> bool:
    """Whether so many of the images are more than the share ``limit`` of them."""
    return count > limit * images


def passed_limit(found: dict[str, Any], data: Data) -> str:
    """Why these data cannot be used: too much unreadable, or in two splits; or nothing.

    Of images in two splits only equal ones count: that near ones show the same is a guess.
    """
    unreadable = found["unreadable"]
    if too_many(unreadable["images"], unreadable["of"], data.max_bad_fraction):
        first = unreadable["files"][0]
        files = _count(unreadable["images"], "unreadable file", "unreadable files")
        return (
            f"{files} ({unreadable['fraction']:.1%}), more than data.max_bad_fraction "
            f"({data.max_bad_fraction:.1%}), such as {first['name']} ({first['reason']})"
        )
    for leak in found["leaks"]:
        first, second = leak["splits"]
        equal, images = leak["identical"], found["images"][second]
        if too_many(equal, images, data.max_leak_fraction):
            count = _count(equal, f"image of {second}", f"images of {second}")
            are = "is equal to one" if equal == 1 else "are equal to some"
            limit = f"data.max_leak_fraction ({data.max_leak_fraction:.1%})"
            return f"{count} ({equal / images:.1%}) {are} of {first}, more than {limit}"
    return ""


def remarks(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is worth a look, in a line each, with the section of the page that shows it."""
    if bad := found["unreadable"]["images"]:
        yield f"{_count(bad, 'unreadable file', 'unreadable files')}, left out", "unreadable"
    if others := found["left_out"]["count"]:
        yield f"{_count(others, 'other file', 'other files')} of the source, left out", "left-out"
    for leak in found["leaks"]:
        if leak["images"]:
            yield f"{_leaked(leak)} ({leak['with_another_label']} with another label)", "leaks"
    if (contradictions := found["contradictions"])["images"]:
        images = f"{contradictions['images']:,} images"
        yield (
            f"{images} stand in several classes: {_equal_or_near(contradictions)}",
            "contradictions",
        )
    for split, repeats in found["repeats"].items():
        if repeats:
            again = _count(repeats, "image is", "images are")
            yield f"{split}: {again} equal to another one of the split, or nearly", "repeats"
    if converted := sum(found["converted"].values()):
        yield _count(converted, "image converted", "images converted"), "converted"


def _leaked(leak: dict[str, Any]) -> str:
    first, second = leak["splits"]
    images = _count(leak["images"], f"image of {second}", f"images of {second}")
    stand = "stands" if leak["images"] == 1 else "stand"
    return f"{images} ({leak['fraction']:.1%}) also {stand} in {first}: {_equal_or_near(leak)}"


def _equal_or_near(counts: dict[str, Any]) -> str:
    equal = counts["identical"]
    return f"{equal:,} equal, {counts['images'] - equal:,} nearly equal"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _spread(sides: "pd.Series[int]") -> dict[str, int]:
    if sides.empty:
        return {}
    return {name: int(getattr(sides, name)()) for name in ("min", "median", "max")}


def _unreadable(manifest: "pd.DataFrame", images: int) -> dict[str, Any]:
    bad = manifest[manifest["verdict"] == "unreadable"]
    files = bad[["name", "note"]].rename(columns={"note": "reason"})
    return {
        "images": len(bad),
        "of": images,
        "fraction": round(len(bad) / images, 4),
        "files": files.head(LISTED).to_dict(orient="records"),
    }


def _leak(manifest: "pd.DataFrame", first: str, second: str) -> dict[str, Any]:
    columns = ["name", "class", "pixels_sha256", "same_as"]
    left = manifest.loc[manifest["split"] == first, columns]
    right = manifest.loc[manifest["split"] == second, columns]
    identical = right["pixels_sha256"].isin(left["pixels_sha256"])
    both = right.merge(
        left.drop_duplicates("same_as"), on="same_as", suffixes=(f"_{second}", f"_{first}")
    )
    other_label = both[f"class_{first}"] != both[f"class_{second}"]
    named = [f"{column}_{split}" for split in (second, first) for column in ("name", "class")]
    return {
        "splits": [first, second],
        "images": len(both),
        "fraction": round(len(both) / max(len(right), 1), 4),
        "identical": int(identical.sum()),
        "with_another_label": int(other_label.sum()),
        "examples": both[named].head(LISTED).to_dict(orient="records"),
    }


def _contradictions(manifest: "pd.DataFrame") -> dict[str, Any]:
    """Images that are the same and stand in several classes."""
    classes, identical = (
        manifest.groupby(column)["class"].transform("nunique") > 1
        for column in ("same_as", "pixels_sha256")
    )
    rows = manifest[classes]
    sets = [group["name"].tolist() for _, group in rows.groupby("same_as", sort=False)]
    return {"images": len(rows), "identical": int(identical.sum()), "sets": sets[:LISTED]}
