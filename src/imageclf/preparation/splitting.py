"""Draw the splits: train, val and test."""

import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from imageclf.data.prepared import Labels
from imageclf.files import UserError
from imageclf.params import Params
from imageclf.preparation.duplicates import joined

if TYPE_CHECKING:
    import pandas as pd

SEARCH_TIME = 1.0  # seconds of processor time to search a name
Groups = NDArray[np.int64]
Names = NDArray[np.object_]


def draw_splits(
    given: Names, labels: Labels, groups: Groups, class_names: Sequence[str], params: Params
) -> Names:
    """The split of every image: as given, or drawn with ``params.seed``.

    If test is not given, it is drawn before val; both are drawn from images of no given split or of
    train. The split of train images beyond ``transform.train_per_class`` is empty.

    Args:
        given: N times train, val, test or empty.
        labels: int64, N.
        groups: int64, N; images of one group go into one split.
        class_names: for the messages.
        params: the seed and the fractions.

    Raises:
        UserError: a class has too few images or groups for all splits.
    """
    generator = np.random.default_rng(params.seed)
    splits = np.where(given == "", "train", given)
    for name, fraction in (
        ("test", params.transform.test_fraction),
        ("val", params.transform.val_fraction),
    ):
        if name not in given:
            rest = np.flatnonzero(splits == "train")
            chosen = stratified_choice(labels[rest], groups[rest], fraction, generator, class_names)
            splits[rest[chosen]] = name
    if params.transform.train_per_class:
        splits[_beyond(params.transform.train_per_class, labels, splits, generator)] = ""
    return splits


def _beyond(
    count: int, labels: Labels, splits: Names, generator: np.random.Generator
) -> NDArray[np.int64]:
    """The train images beyond ``count`` per class, drawn at random."""
    drawn = generator.permutation(np.flatnonzero(splits == "train"))
    of_class = (drawn[labels[drawn] == label][count:] for label in np.unique(labels))
    return np.concatenate([*of_class])


def origins(names: "pd.Series[str]", same: Groups, pattern: str) -> Groups:
    """Groups of images that show the same, or whose names agree in the pattern.

    Names agree in the first group of the pattern that matched, or in its whole match if it has no
    groups.

    Raises:
        UserError: the pattern matches no name, or the search takes too long.
    """
    if not pattern:
        return same
    first: dict[str, int] = {}
    pairs = []
    for number, match in enumerate(_matches(pattern, names)):
        if match:
            found = match.groups() if match.re.groups else [match[0]]
            if origin := next(filter(None, found), None):
                pairs.append((number, first.setdefault(origin, number)))
    if not pairs:
        raise UserError(f"data.group_pattern: {pattern!r} matches no name, such as {names.iloc[0]}")
    return joined(same, np.array(pairs))


def _matches(pattern: str, names: Iterable[str]) -> Iterator[re.Match[str] | None]:
    """The match of the pattern in each name; the processor time is limited for each.

    Some patterns, such as ``(a+)+b``, take very long to find no match. The re module handles
    signals during a search.
    """

    def stop(*_: object) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        for name in names:
            signal.setitimer(signal.ITIMER_VIRTUAL, SEARCH_TIME)
            match = re.search(pattern, name)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            yield match
    except TimeoutError:
        raise UserError(
            f"data.group_pattern: {pattern!r} takes more than {SEARCH_TIME:g} s to search {name}: "
            "write it without repeats within repeats, such as (a+)+"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def stratified_choice(
    labels: Labels,
    groups: Groups,
    fraction: float,
    generator: np.random.Generator,
    class_names: Sequence[str],
) -> NDArray[np.bool_]:
    """Mark ``fraction`` of the images of every class, at least one, drawn at random.

    Whole groups are chosen, each with the class of its first image, as far as they fit; if none
    fits, the smallest one is chosen.

    Args:
        labels: int64, N.
        groups: int64, N.
        fraction: between 0 and 1.
        generator: the source of the draw.
        class_names: for the messages.

    Returns:
        bool, N: True for the chosen ones.

    Raises:
        UserError: a class has a single image or group, which cannot be divided.
    """
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    sizes = np.bincount(group_of)
    chosen = np.zeros(len(sizes), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels[first][group_of] == label)
        drawn = group_of[generator.permutation(members)]
        candidates = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        if len(candidates) < 2:
            raise UserError(
                f"class {class_names[label]} has too few images, without copies and those of one "
                f"origin: {len(candidates)} left, but train and each drawn split need one"
            )
        wanted = min(max(round(fraction * len(members)), 1), len(members) - 1)
        taken = _that_fit(sizes[candidates], wanted)
        chosen[candidates[taken] if taken else candidates[[sizes[candidates].argmin()]]] = True
    return chosen[group_of]


def _that_fit(sizes: NDArray[np.int64], wanted: int) -> list[int]:
    """The indices of the groups that, taken in order, hold at most ``wanted`` images together."""
    taken = []
    for place, size in enumerate(sizes.tolist()):
        if size <= wanted:
            taken.append(place)
            wanted -= size
        if not wanted:
            break
    return taken
