"""The class and split of an image of the raw folder, by the folders that it lies in.

Names are paths with ``/`` between their parts. They have one of two layouts: ``CLASS/...``, or
``SPLIT/CLASS/...`` if each folder at the top names a split.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    """The path, split and class of an image; ``split`` is empty if the folders name no splits."""

    name: str
    split: str
    class_name: str


def arrange(names: Iterable[str]) -> list[Place]:
    """The places of the images that lie in a class folder, sorted by name."""
    names = sorted(names)
    tops = {name.split("/")[0].lower() for name in names if "/" in name}
    depth = 1 if tops <= set(SPLIT_OF_FOLDER) else 0
    places = []
    for name in names:
        parts = name.split("/")
        if len(parts) >= depth + 2:
            split = SPLIT_OF_FOLDER[parts[0].lower()] if depth else ""
            places.append(Place(name, split, parts[depth]))
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
                f"the class {place.class_name} is in {place.split} but not in train: a network "
                "cannot recognise it; add it to train or remove it"
            )
    if len(known) == 1:
        raise UserError(f"there is one class, {known[0]}: a classifier needs two or more")
    return known
