"""The audit with pictures: one HTML page that needs nothing beside it."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imageclf.data.prepared import SPLITS, images_path, load_split
from imageclf.drawing.html import render
from imageclf.drawing.pictures import data_address
from imageclf.files import write_text
from imageclf.preparation.audit import remarks

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 24  # pictures, or sets of pictures, of a kind
TOGETHER = 6  # pictures of a set
CLASSES_SHOWN = 30
EXAMPLES = 8  # of each class
POINTS = 500  # in the chart of sizes


@dataclass(frozen=True)
class Picture:
    """An image on the page: its address (``data:...``) and what the manifest tells of it."""

    address: str
    name: str
    split: str
    class_name: str
    note: str


class Album:
    """The images of a prepared folder by their names; empty where it holds no arrays."""

    def __init__(self, prepared: Path, manifest: "pd.DataFrame") -> None:
        packed = images_path(prepared, "train").exists()
        self._images = {name: load_split(prepared, name).images for name in SPLITS if packed}
        row = manifest.groupby("split").cumcount()
        self._rows = manifest.assign(row=row).set_index("name")

    def pictures(self, names: Iterable[str]) -> list[Picture]:
        """Pictures of the images of these names."""
        return [self._picture(name) for name in names if self._images]

    def _picture(self, name: str) -> Picture:
        entry = self._rows.loc[name]
        address = data_address(self._images[entry["split"]][entry["row"]])
        return Picture(address, name, entry["split"], entry["class"], entry["note"])


def write_audit_report(
    path: Path, prepared: Path, manifest: "pd.DataFrame", found: dict[str, Any], problem: str
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the page.
        prepared: the folder that ``prepare.prepare`` wrote.
        manifest: what that returned.
        found: of ``audit.audit``.
        problem: what stops the stage, or nothing.
    """
    album = Album(prepared, manifest)
    page = render(
        Path(__file__).with_name("audit.html.j2"),
        problem=problem,
        found=found,
        remarks=list(remarks(found)),
        splits=SPLITS,
        shown=SHOWN,
        largest_class=max(max(counts.values()) for counts in found["class_balance"].values()),
        sizes=_sizes(manifest),
        classes={
            name: album.pictures(_examples(manifest, name))
            for name in list(found["class_balance"]["train"])[:CLASSES_SHOWN]
        },
        converted=album.pictures(_converted(manifest)),
        leaks=[
            [
                album.pictures(_pair(example, *leak["splits"]))
                for example in leak["examples"][:SHOWN]
            ]
            for leak in found["leaks"]
        ],
        contradictions=[
            (album.pictures(names[:TOGETHER]), len(names))
            for names in found["contradictions"]["sets"][:SHOWN]
        ],
        repeats=[(album.pictures(names[:TOGETHER]), len(names)) for names in _repeats(manifest)],
    )
    write_text(path, page)


def _examples(manifest: "pd.DataFrame", class_name: str) -> list[str]:
    """Names of train images of a class, evenly spread over them."""
    chosen = (manifest["split"] == "train") & (manifest["class"] == class_name)
    names: list[str] = manifest.loc[chosen, "name"].tolist()
    return names[:: max(1, len(names) // EXAMPLES)][:EXAMPLES]


def _converted(manifest: "pd.DataFrame") -> list[str]:
    """Names of converted images, those of the rarest kinds first."""
    rows = manifest[manifest["verdict"] == "converted"]
    common = rows.groupby("note")["name"].transform("size")
    rows = rows.assign(common=common).sort_values(["common", "note"], kind="stable")
    names: list[str] = rows["name"].head(SHOWN).tolist()
    return names


def _pair(example: dict[str, str], first: str, second: str) -> tuple[str, str]:
    return example[f"name_{first}"], example[f"name_{second}"]


def _repeats(manifest: "pd.DataFrame") -> list[list[str]]:
    """Names of images that show the same within a split, a list for each set of them."""
    rows = manifest[manifest["split"] != ""]
    rows = rows[rows.duplicated(["split", "same_as"], keep=False)]
    sets = rows.groupby(["split", "same_as"], sort=False)["name"]
    return [names.tolist() for _, names in islice(sets, SHOWN)]


def _sizes(manifest: "pd.DataFrame") -> list[tuple[int, int]]:
    """Width and height of images spread evenly over the manifest, for the chart."""
    rows = manifest[manifest["verdict"] != "unreadable"]
    rows = rows.iloc[:: max(1, len(rows) // POINTS)]
    return list(zip(rows["width"].tolist(), rows["height"].tolist(), strict=True))
