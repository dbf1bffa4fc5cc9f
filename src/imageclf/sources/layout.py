"""The layout of a source: which of its folders are splits, and which are classes.

A layout lists for each split the patterns of the folders that hold its images, such as
``{"train": ["training_set/*"]}`` or ``{"train": ["*/train"]}``. ``*`` is a folder of any name; the
last ``*`` is the class. The split is empty if the folders name none. The images get names as in
``class_folders``.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from os.path import commonpath

from imageclf.data.class_folders import SPLIT_OF_FOLDER
from imageclf.files import UserError

Layout = Mapping[str, Sequence[str]]
WORDS = {
    "train": r"train(?:ing)?",
    "val": r"val(?:id(?:ation)?)?|eval(?:uation)?|dev",
    "test": r"test(?:ing)?",
}
# Words without meaning in the name of a folder of images.
GENERIC = "set|data|dataset|images?|imgs?|photos?|pictures?|split|folder"
NAMED = 3  # folders in a message, at most


def wrapper(images: Sequence[str], folders: Iterable[str], chosen: Layout) -> str:
    """The folders without meaning that hold everything, such as ``flower_photos/``; may be empty.

    Below them there is a folder per class or split.

    Args:
        images: their names, at least one.
        folders: the names of all folders, also of empty ones.
        chosen: ``data.splits``; its folders have a meaning.
    """
    shared = commonpath(images)
    beside = [folder for folder in folders if not f"{shared}/".startswith(f"{folder}/")]
    parts = [part for part in commonpath([*images, *beside]).split("/") if part]
    meant = {pattern.split("/")[0] for patterns in chosen.values() for pattern in patterns}
    # A single class would be an error, so a folder that holds only folders is no class.
    depth = min(name.count("/") for name in images) - 1
    kept = 0
    while (
        kept < min(len(parts), depth)
        and parts[kept].lower() not in SPLIT_OF_FOLDER
        and parts[kept] not in meant
    ):
        kept += 1
    return "".join(f"{part}/" for part in parts[:kept])


def recognised(images: Iterable[str]) -> Layout:
    """The layout of images (names below the ``wrapper``) by the names of their folders.

    Raises:
        UserError: the names are ambiguous; the message gives values for ``data.splits``.
    """
    tree = _Tree(images)
    layout = _splits_at_the_top(tree) or _splits_in_classes(tree) or {"": ["*"]}
    _check_classes_are_told_from_groups(tree, layout)
    return layout


def chosen_layout(splits: Mapping[str, str | list[str]]) -> Layout:
    """The layout of ``data.splits``; a folder without ``*`` holds class folders."""
    layout = {}
    for split, folders in splits.items():
        patterns = []
        for folder in [folders] if isinstance(folders, str) else folders:
            parts = [part for part in folder.split("/") if part not in {"", "."}]
            patterns.append("/".join(parts if "*" in parts else [*parts, "*"]))
        layout[split] = patterns
    return layout


def check_all_are_there(images: Iterable[str], layout: Layout) -> None:
    """Check that each pattern of a layout holds an image.

    Raises:
        UserError: names the split and the pattern.
    """
    found = {match for image in images if (match := _best_match(_above(image), layout))}
    tops = {image.split("/")[0] for image in images if "/" in image}
    for split, patterns in layout.items():
        for pattern in patterns:
            if (split, pattern) not in found:
                raise UserError(
                    f"data.splits: {split}: no image lies in a folder {pattern}; there are the "
                    f"folders {_some(tops)}"
                )


def raw_name(image: str, layout: Layout) -> str | None:
    """The name of an image in the raw folder; None if it is in no class folder."""
    found = _best_match(_above(image), layout)
    if not found:
        return None
    split, pattern = found
    parts, wanted = image.split("/"), pattern.split("/")
    place = len(wanted) - 1 - wanted[::-1].index("*")
    several = len(layout[split]) > 1
    usual = wanted[1:] == ["*"] and SPLIT_OF_FOLDER.get(parts[0].lower()) == split
    above = [parts[0] if usual and not several else split] if split else []
    # Images of one name may lie in several folders of a class.
    others = [part for i, part in enumerate(parts[: len(wanted)]) if i != place]
    kept = others if several or wanted.count("*") > 1 else []
    return "/".join([*above, parts[place], *kept, *parts[len(wanted) :]])


def is_class_folder(folder: str, layout: Layout) -> bool:
    """Whether a folder is a class folder, not one inside or above it."""
    found = _best_match(folder.split("/"), layout)
    return found is not None and found[1].count("/") == folder.count("/")


def _above(name: str) -> list[str]:
    return name.split("/")[:-1]


def _best_match(folders: list[str], layout: Layout) -> tuple[str, str] | None:
    """The split and the longest, most exact pattern that a path begins with."""
    matches = []
    for split, patterns in layout.items():
        for pattern in patterns:
            wanted = pattern.split("/")
            pairs = zip(wanted, folders, strict=False)
            if len(folders) >= len(wanted) and all(want in {"*", part} for want, part in pairs):
                matches.append((len(wanted), -wanted.count("*"), split, pattern))
    if not matches:
        return None
    *_, split, pattern = max(matches)
    return split, pattern


class _Tree:
    """The folders ``inside`` each folder, and the ``direct`` ones, which hold images themselves."""

    def __init__(self, images: Iterable[str]) -> None:
        self.inside: defaultdict[str, set[str]] = defaultdict(set)
        self.direct: set[str] = set()
        for name in images:
            folders = name.split("/")[:-1]
            self.direct.add("/".join(folders))
            for depth, folder in enumerate(folders):
                self.inside["/".join(folders[:depth])].add(folder)


def _splits_at_the_top(tree: _Tree) -> Layout:
    tops = tree.inside[""]
    found = _split_folders(tops)
    words = {split for split, _ in filter(None, map(_split_and_rest, tops))}
    if not found:
        if len(words) > 1 and "train" in words and all(map(_split_and_rest, tops)):
            raise UserError(
                f"{_some(tops)} may be splits or classes: set data.splits to {{train: .}} if they "
                f"are classes, or name there the folder of each split"
            )
        return {}
    if strangers := sorted(tops - set(found)):
        raise UserError(
            f"beside {_some(found)} there is {strangers[0]}, which names no split: have folders of "
            "classes at the top (data.splits: {train: .}), or folders of splits, but not both"
        )
    _check_for_doubles(found)
    return {split: [_without_repetition(tree, top, split)] for top, split in sorted(found.items())}


def _without_repetition(tree: _Tree, folder: str, split: str) -> str:
    """The pattern of a split's classes; ``seg_train/seg_train`` is one split."""
    while (
        len(tree.inside[folder]) == 1
        and folder not in tree.direct
        and (_split_and_rest(next(iter(tree.inside[folder]))) or ("",))[0] == split
    ):
        folder = f"{folder}/{next(iter(tree.inside[folder]))}"
    return f"{folder}/*"


def _splits_in_classes(tree: _Tree) -> Layout:
    """CLASS/{train,test}."""
    tops = tree.inside[""]

    def has_splits(top: str) -> bool:
        return len(set(_split_folders(tree.inside[top]).values())) > 1

    if not any(map(has_splits, tops)):
        return {}
    inner = {folder for top in tops for folder in tree.inside[top]}
    found = _split_folders(inner)
    if inner != set(found) or tops & tree.direct:
        one = min(filter(has_splits, tops))
        raise UserError(
            f"{one} holds folders of splits ({_some(tree.inside[one])}), and not every folder does "
            "so: have splits in all classes or in none; if none of them is a split, set "
            "data.splits to {train: .}"
        )
    _check_for_doubles(found)
    return {split: [f"*/{folder}"] for folder, split in sorted(found.items())}


def _split_folders(folders: set[str]) -> dict[str, str]:
    """The split of each folder that is named like a split, if the folders are splits at all."""
    alike: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for folder in folders:
        if found := _split_and_rest(folder):
            split, rest = found
            alike[rest][folder] = split
    usual = {folder: SPLIT_OF_FOLDER.get(folder.lower()) for folder in folders}
    if folders and ("train" in usual.values() or all(usual.values())):
        return alike[""]
    groups = (group for group in alike.values() if {"train"} < set(group.values()))
    return next(groups, {})


def _split_and_rest(folder: str) -> tuple[str, str] | None:
    """Train, val or test, and the rest of the name: seg_train is train, seg."""
    if folder.lower() in SPLIT_OF_FOLDER:
        return SPLIT_OF_FOLDER[folder.lower()], ""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+", folder)
    splits, rest = [], []
    for word in map(str.lower, words):
        named = [s for s, w in WORDS.items() if re.fullmatch(f"(?:{w})(?:{GENERIC})?", word)]
        splits += named
        if not named and not re.fullmatch(f"(?:{GENERIC})s?", word):
            rest.append(word)
    return (splits[0], " ".join(rest)) if len(splits) == 1 else None


def _check_for_doubles(found: Mapping[str, str]) -> None:
    for split in sorted(set(found.values())):
        same = sorted(folder for folder in found if found[folder] == split)
        if len(same) > 1:
            raise UserError(
                f"two of the folders {', '.join(sorted(found))} name the same split: set "
                f"data.splits, such as {{{split}: [{', '.join(same)}]}}"
            )


def _check_classes_are_told_from_groups(tree: _Tree, layout: Layout) -> None:
    """Refuse class folders that hold only folders: those may be the classes."""
    for split, (pattern,) in layout.items():
        above = pattern.removesuffix("*").rstrip("/")
        if not pattern.endswith("*") or split not in {"", "train"}:
            continue
        classes = [f"{above}/{name}".lstrip("/") for name in sorted(tree.inside[above])]
        inner = {folder for name in classes for folder in tree.inside[name]}
        if tree.direct & set(classes) or all(len(tree.inside[name]) < 2 for name in classes):
            continue
        uppers = {
            split or "train": pattern.removesuffix("*").rstrip("/")
            for split, (pattern,) in layout.items()
        }
        upper = {split: folder or "." for split, folder in uppers.items()}
        lower = {split: f'"{f"{folder}/*/*".lstrip("/")}"' for split, folder in uppers.items()}
        raise UserError(
            f"{_some(classes)} hold folders ({_some(inner)}) and no images: which are the classes? "
            f"Set data.splits to {_as_yaml(upper)} for {_some(classes)}, or to {_as_yaml(lower)} "
            f"for {_some(inner)}"
        )


def _some(names: Iterable[str]) -> str:
    """The first few names."""
    names = sorted(names)
    more = f" and {len(names) - NAMED} others" if len(names) > NAMED + 1 else ""
    return ", ".join(names[:NAMED] if more else names) + more


def _as_yaml(values: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"
