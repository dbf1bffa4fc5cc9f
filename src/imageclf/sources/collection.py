"""The content of a source: which files are images, their classes and splits, and other files."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rich.table import Table
from rich.text import Text

from imageclf.data.archives import File
from imageclf.data.class_folders import SPLIT_OF_FOLDER, Place, arrange, class_names
from imageclf.data.image_files import (
    FORMATS,
    START,
    begins_as_image,
    is_image,
    is_other_image,
)
from imageclf.files import UserError
from imageclf.sources.containers import Listing
from imageclf.sources.layout import (
    Layout,
    check_all_are_there,
    chosen_layout,
    is_class_folder,
    raw_name,
    recognised,
    wrapper,
)
from imageclf.text import printable

# Files that may hold labels, which are not read.
TABLES = {".csv", ".tsv", ".txt", ".json", ".xml", ".xlsx", ".mat", ".parquet", ".yaml", ".yml"}
KINDS_NAMED = 5
CLASSES_SHOWN = 10
FEW_NAMED = 5
FORMAT_NAMES = ", ".join(known.name for known in FORMATS)


@dataclass(frozen=True)
class Collected:
    """The content of a source.

    Attributes:
        images: sorted by their names in the raw folder.
        places: of the images, in the same order.
        class_names: sorted.
        layout: which folders of the source are splits; empty if their names alone tell.
        unsupported: the names of the images whose format is not read.
        left_out: the names and reasons of the other files.
    """

    images: list[File]
    places: list[Place]
    class_names: list[str]
    layout: Layout
    unsupported: list[str]
    left_out: list[dict[str, str]]

    @property
    def bytes(self) -> int:
        """The size of all images together."""
        return sum(image.size for image in self.images)


def collect(listing: Listing, source: Path, splits: Mapping[str, str | list[str]]) -> Collected:
    """Find the images, and their classes and splits by their folders.

    ``source`` is for the messages; ``splits`` is ``data.splits``.

    Raises:
        UserError: the folders are no classes, or are ambiguous.
    """
    supported, unsupported = _images(listing.files)
    if not supported:
        kinds = f", but other files ({counted(unsupported)})" if unsupported else ""
        raise UserError(f"{source} holds no images of a supported format ({FORMAT_NAMES}){kinds}")
    try:
        return _arranged(listing, supported, unsupported, chosen_layout(splits))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def counted(names: Iterable[str]) -> str:
    """Files by kind: ``8 .heic, 1 without a suffix``."""
    kinds = Counter(PurePosixPath(name).suffix.lower() or "without a suffix" for name in names)
    told = [f"{count:,} {printable(kind)}" for kind, count in kinds.most_common(KINDS_NAMED)]
    if more := kinds.total() - sum(count for _, count in kinds.most_common(KINDS_NAMED)):
        told.append(f"{more:,} others")
    return ", ".join(told)


def class_table(places: Sequence[Place]) -> Table:
    """The number of images of each class and split, in a few lines."""
    counts = Counter((place.class_name, place.split) for place in places)
    classes = sorted({name for name, _ in counts})
    splits = [
        split
        for split in dict.fromkeys(("", *SPLIT_OF_FOLDER.values()))
        if split in {split for _, split in counts}
    ]
    table = Table("class", box=None, pad_edge=False, show_edge=False)
    table.columns[0].overflow = "ellipsis"
    table.columns[0].no_wrap = True
    table.columns[0].max_width = 44
    for split in splits:
        table.add_column(split or "images", justify="right", no_wrap=True)

    def add(title: str, names: Sequence[str]) -> None:
        totals = [sum(counts[name, split] for name in names) for split in splits]
        table.add_row(Text(title), *(f"{total:,}" for total in totals))

    shown = classes if len(classes) <= CLASSES_SHOWN else classes[: CLASSES_SHOWN - 1]
    for name in shown:
        add(printable(name), [name])
    if others := classes[len(shown) :]:
        add(f"{len(others):,} others", others)
    add(f"all {len(classes):,}", classes)
    return table


def _images(files: Iterable[File]) -> tuple[set[str], set[str]]:
    """The names of the images whose format is read, and of the other images."""
    supported, unsupported = set(), set()
    for file in files:
        if is_image(file.name):
            supported.add(file.name)
            continue
        with file.open() as content:
            start = content.read(START)
        if begins_as_image(start):
            supported.add(file.name)
        elif is_other_image(file.name, start):
            unsupported.add(file.name)
    return supported, unsupported


def _arranged(
    listing: Listing, supported: set[str], unsupported: set[str], chosen: Layout
) -> Collected:
    images = [file for file in listing.files if file.name in supported | unsupported]
    useless = wrapper([image.name for image in images], listing.folders, chosen)
    names = [image.name.removeprefix(useless) for image in images]
    if chosen:
        check_all_are_there(names, chosen)
    layout = chosen or recognised(names)
    raw: dict[str, File] = {}
    for name, image in zip(names, images, strict=True):
        if new := raw_name(name, layout):
            if new in raw:
                raise UserError(f"{name} and another image would both be {new}: rename one")
            raw[new] = image
    places = arrange(raw)
    inside = {image.name for image in raw.values()}
    others = [file.name for file in listing.files if file.name not in inside]
    _check_labels(names, places, others)
    _check_class_folders(listing, supported, useless, layout)
    classes = class_names(places)
    unread = sorted(new for new, image in raw.items() if image.name in unsupported)
    _check_counts(places, set(unread))
    as_named = all(raw_name == image.name.removeprefix(useless) for raw_name, image in raw.items())
    return Collected(
        [File(place.name, raw[place.name].size, raw[place.name].open) for place in places],
        places,
        classes,
        {} if as_named else layout,
        unread,
        [
            {
                "name": name,
                "reason": "in no class folder"
                if name in supported | unsupported
                else "not an image by its name",
            }
            for name in sorted(others)
        ],
    )


def _check_labels(names: Sequence[str], places: Sequence[Place], others: Sequence[str]) -> None:
    """Check that folders tell the classes, and not a table of labels."""
    if len({place.class_name for place in places}) > 1:
        return
    first = min(names)
    folder, _, file = first.rpartition("/")
    wanted = (
        "put the images of each class into a folder that bears its name, such as "
        f"{folder if not places else '.'}/CLASS/{file}".replace("./", "")
    )
    if tables := [name for name in others if PurePosixPath(name).suffix.lower() in TABLES]:
        raise UserError(
            f"no folders tell the classes of the images, such as {first}, and labels in files such "
            f"as {min(tables)} are not read: {wanted}"
        )
    if not places:
        raise UserError(f"no image lies in a class folder, such as {first}: {wanted}")


def _check_class_folders(
    listing: Listing, supported: set[str], useless: str, layout: Layout
) -> None:
    filled = {str(above) for name in supported for above in PurePosixPath(name).parents}
    for folder in listing.folders:
        name = folder.removeprefix(useless)
        if folder in filled or not folder.startswith(useless) or not is_class_folder(name, layout):
            continue
        inside = [file.name for file in listing.files if file.name.startswith(f"{folder}/")]
        kinds = f" that can be read, but other files ({counted(inside)})" if inside else ""
        raise UserError(f"the class folder {name} holds no image{kinds}: fill it or remove it")


def _check_counts(places: Sequence[Place], unread: set[str]) -> None:
    """Check that each class has an image for each split; duplicates are found only later."""
    given = {place.split for place in places}
    wanted = ["train", *(split for split in ("val", "test") if split not in given)]
    counts = Counter(
        place.class_name
        for place in places
        if place.split in {"", "train"} and place.name not in unread
    )
    few = [f"{name} ({counts[name]})" for name in sorted(counts) if counts[name] < len(wanted)]
    if few:
        more = f" and {len(few) - FEW_NAMED} others" if len(few) > FEW_NAMED else ""
        raise UserError(
            f"too few images in {', '.join(few[:FEW_NAMED])}{more}: each class needs "
            f"{len(wanted)}, one each for {', '.join(wanted)}"
        )
