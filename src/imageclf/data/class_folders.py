"""Which class and split an image belongs to, by the folders that it lies in.

Names are paths with ``/`` between their parts, relative to the folder or archive that holds all.
Three layouts are known: ``CLASS/...``, ``{train,test}/CLASS/...``, ``{train,val,test}/CLASS/...``.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os.path import commonpath

from imageclf.files import UserError

IMAGES = "images.tar"  # in the raw folder
SPLIT_OF_FOLDER = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Place:
    """Where an image belongs.

    Attributes:
        name: its path.
        split: train, val or test; empty where the folders name no splits.
        class_name: the folder below that.
    """

    name: str
    split: str
    class_name: str


def wrapper(images: Sequence[str], folders: Iterable[str]) -> str:
    """The folders that hold all the rest and mean nothing, such as ``flower_photos/``, or nothing.

    What remains below them is a folder per class or split.

    Args:
        images: their names, at least one.
        folders: the names of all folders, also of empty ones.
    """
    shared = commonpath(images)
    beside = [folder for folder in folders if not f"{shared}/".startswith(f"{folder}/")]
    parts = [part for part in commonpath([*images, *beside]).split("/") if part]
    # One class alone would be an error: a folder that only holds folders is none.
    depth = min(name.count("/") for name in images) - 1
    kept = 0
    while kept < min(len(parts), depth) and parts[kept].lower() not in SPLIT_OF_FOLDER:
        kept += 1
    return "".join(f"{part}/" for part in parts[:kept])


def arrange(names: Iterable[str]) -> list[Place]:
    """The places of the images that lie in a class folder, in the order of their names.

    Raises:
        UserError: the folders at the top are neither all classes nor all splits.
    """
    names = sorted(names)
    splits = _splits({name.split("/")[0] for name in names if "/" in name})
    depth = 1 if splits else 0
    places = []
    for name in names:
        parts = name.split("/")
        if len(parts) >= depth + 2:
            places.append(Place(name, splits[parts[0]] if splits else "", parts[depth]))
    return places


def class_names(places: Sequence[Place]) -> list[str]:
    """The classes, sorted; a label is an index into them.

    Raises:
        UserError: there are fewer than two, or val or test holds one that train lacks.
    """
    splits = {place.split for place in places}
    if splits & {"val", "test"} and "train" not in splits:
        raise UserError(f"there is no folder train beside {' and '.join(sorted(splits))}")
    owner = "train" if "train" in splits else ""
    known = sorted({place.class_name for place in places if place.split == owner})
    if not known:
        raise UserError(
            "no image lies in a class folder: put the images of each class into a folder that "
            "bears its name"
        )
    for place in places:
        if place.class_name not in known:
            raise UserError(
                f"the class {place.class_name} stands in {place.split} and not in train: what is "
                "never trained on cannot be recognised; add it to train or remove it"
            )
    if len(known) == 1:
        raise UserError(f"there is one class, {known[0]}: a classifier needs two or more")
    return known


def check_for_empty_classes(folders: Iterable[str], places: Sequence[Place]) -> None:
    """Refuse a folder that should be a class but holds no image.

    Raises:
        UserError: names it.
    """
    depth = 1 if any(place.split for place in places) else 0
    filled = Counter("/".join(place.name.split("/")[: depth + 1]) for place in places)
    tops = {place.name.split("/")[0] for place in places}
    for folder in sorted(folders):
        parts = folder.split("/")
        below_a_split = depth == 0 or parts[0] in tops
        if len(parts) == depth + 1 and below_a_split and folder not in filled:
            raise UserError(f"the class folder {folder} holds no image: fill it or remove it")


def _splits(tops: set[str]) -> dict[str, str]:
    """The split of each folder at the top; nothing where these are classes."""
    splits = {top: SPLIT_OF_FOLDER[top.lower()] for top in tops if top.lower() in SPLIT_OF_FOLDER}
    if "train" not in splits.values() and len(splits) < len(tops):
        return {}
    if strangers := sorted(tops - set(splits)):
        raise UserError(
            f"beside {' and '.join(sorted(splits))} there is {strangers[0]}, which names no split: "
            "have folders of classes at the top, or folders of splits, but not both"
        )
    if len(set(splits.values())) < len(splits):
        raise UserError(f"two of the folders {', '.join(sorted(splits))} name the same split")
    return splits
