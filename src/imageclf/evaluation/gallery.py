"""Which test images the report shows: the worst, the least sure, those of each confusion."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imageclf.data.prepared import Images
from imageclf.drawing.pictures import data_address
from imageclf.evaluation.metrics import Predictions, worst_first

Order = NDArray[np.int64]  # numbers of test images


@dataclass(frozen=True)
class Rows:
    """What the manifest tells of the test images, in their order.

    Attributes:
        names: of their files.
        same: a number that equal and nearly equal images share.
    """

    names: Sequence[str]
    same: NDArray[np.int64]


@dataclass(frozen=True)
class Shown:
    """A test image on the page.

    Attributes:
        address: ``data:...``, the image itself.
        copies: how many more of the images it was chosen from show the same.
        beside: the address of a second picture, to stand beside it; empty for none.
    """

    number: int
    address: str
    name: str
    actual: str
    predicted: str
    probability: float
    copies: int
    beside: str = ""


@dataclass(frozen=True)
class Confusion:
    """Test images of one class that are taken for another, the worst first."""

    actual: int
    predicted: int
    images: Order


def read_rows(manifest: Path) -> Rows:
    """Those of ``data/prepared/manifest.parquet``."""
    import pandas as pd

    table = pd.read_parquet(manifest, columns=["name", "split", "same_as"])
    table = table[table["split"] == "test"]
    return Rows(table["name"].tolist(), pd.factorize(table["same_as"])[0].astype(np.int64))


class Gallery:
    """Test images with their predictions, to be shown by their numbers."""

    def __init__(
        self,
        images: Images,
        rows: Rows,
        predictions: Predictions,
        class_names: Sequence[str],
    ) -> None:
        self._images, self._rows, self._predictions = images, rows, predictions
        self._classes = class_names

    def distinct(self, order: Order, count: int) -> Iterator[tuple[int, int]]:
        """The first ``count`` images that show different things, and the copies of each.

        Copies are counted among all of ``order``.
        """
        _, first, counts = np.unique(self._rows.same[order], return_index=True, return_counts=True)
        for place in np.argsort(first)[:count]:
            yield int(order[first[place]]), int(counts[place]) - 1

    def show(self, order: Order, count: int) -> list[Shown]:
        """The first ``count`` of these images, near-copies collapsed to one."""
        return [self._shown(number, copies) for number, copies in self.distinct(order, count)]

    def show_each(self, orders: Sequence[Order], count: int, room: int) -> list[list[Shown]]:
        """``count`` images of each order at most, and so few that their addresses fit the room.

        Every order has its first image before any has its second. ``room`` is in bytes.
        """
        chosen = [list(self.distinct(order, count)) for order in orders]
        shown: list[list[Shown]] = [[] for _ in orders]
        for rank in range(count):
            for pictures, numbers in zip(shown, chosen, strict=True):
                if rank < len(numbers) and room > 0:
                    pictures.append(self._shown(*numbers[rank]))
                    room -= len(pictures[-1].address)
        return shown

    def _shown(self, number: int, copies: int) -> Shown:
        predictions = self._predictions
        return Shown(
            number,
            data_address(self._images[number]),
            self._rows.names[number],
            self._classes[predictions.labels[number]],
            self._classes[predictions.predicted[number]],
            float(predictions.confidence[number]),
            copies,
        )


def worst(predictions: Predictions) -> Order:
    """The mistakes with the highest loss first."""
    order = worst_first(predictions)
    return order[~predictions.right[order]]


def least_sure(predictions: Predictions) -> Order:
    """The images whose two likeliest classes are closest to each other first."""
    second, first = np.sort(predictions.probabilities, axis=1)[:, -2:].T
    return np.argsort(first - second, kind="stable")


def random_right(predictions: Predictions, seed: int) -> Order:
    """The right images in random order."""
    return np.random.default_rng(seed).permutation(np.nonzero(predictions.right)[0])


def confusions(predictions: Predictions) -> list[Confusion]:
    """A confusion for each pair of classes that has mistakes, those of most images first."""
    wrong = worst(predictions)
    pairs = np.stack([predictions.labels[wrong], predictions.predicted[wrong]], axis=1)
    kinds, place = np.unique(pairs, axis=0, return_inverse=True)
    ordered = wrong[np.argsort(place, kind="stable")]
    groups = np.split(ordered, np.cumsum(np.bincount(place, minlength=len(kinds)))[:-1])
    found = [
        Confusion(actual, predicted, images)
        for (actual, predicted), images in zip(kinds.tolist(), groups, strict=False)
    ]
    return sorted(found, key=lambda each: -len(each.images))


def most_confused(found: Iterable[Confusion], classes: int, count: int) -> list[int]:
    """The ``count`` classes of the strongest confusions, all if there are no more, in order."""
    if classes <= count:
        return list(range(classes))
    chosen: dict[int, None] = {}
    for each in found:
        if len({*chosen, each.actual, each.predicted}) > count:
            break
        chosen |= {each.actual: None, each.predicted: None}
    return sorted(chosen)
