"""Images that are the same, or nearly so: re-encoded, scaled, slightly cropped, mirrored.

``hashing`` proposes pairs and ``alignment`` confirms them on the prepared pixels. How like each
other different images of a set may be, such as X-rays, is measured on pairs drawn at random, and a
copy has to be clearly more like its original. docs/duplicates.md tells what that finds and misses.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from imageclf.data.prepared import Pixels
from imageclf.preparation.alignment import detail_correlation, has_detail, shrunk
from imageclf.preparation.hashing import Pairs, candidates

SMALLEST = 28  # pixels of a side, of images whose detail tells them apart
LEAST_AGREEMENT = 0.92  # correlation of the detail of copies
DRAWN = 256  # pairs of different images, to see how like each other those are
FEWEST_DRAWN = 30
DEVIATIONS = 6  # from these, as a normal variable, that a copy keeps
AT_ONCE = 256  # pairs whose pixels are in memory

Groups = NDArray[np.int64]
Read = Callable[[Pairs], Iterable[Pixels]]
Mirrored = NDArray[np.bool_]


def same_images(digests: Sequence[str], thumbnails: Pixels | None, side: int, read: Read) -> Groups:
    """The number of the first image that each one is the same as, its own where there is none.

    Images of equal pixels are the same, and images that were confirmed as copies of that first one:
    a chain of images each like the next is no group.

    Args:
        digests: of the pixels of N images; equal ones mean equal images.
        thumbnails: uint8, N x 8 x 9 x C; without them only equal images are found, and likewise
            where the sides are shorter than ``SMALLEST``.
        side: the shorter one of the prepared images, in pixels.
        read: the prepared pixels (uint8, H x W x C) of images by their numbers.
    """
    _, first, group = np.unique(np.asarray(digests), return_index=True, return_inverse=True)
    same: Groups = first[group]
    if thumbnails is None or side < SMALLEST:
        return same
    kept = np.sort(first)
    copies = np.arange(len(digests))
    copies[kept] = kept[near_images(thumbnails[kept], lambda numbers: read(kept[numbers]))]
    return copies[same]


def near_images(thumbnails: Pixels, read: Read) -> Groups:
    """As ``same_images``, of images (N) no two of which are equal."""
    found = np.arange(len(thumbnails))
    pairs, mirrored = candidates(thumbnails)
    if not len(pairs):
        return found
    limit = _limit(pairs, len(found), read)
    confirmed = _agreement(pairs, mirrored, read) >= limit
    for earlier, later in pairs[confirmed].tolist():
        first = int(found[earlier])
        if found[later] == later and (first == earlier or _is_copy(first, later, read, limit)):
            found[later] = first
    return found


def joined(groups: Groups, pairs: Pairs) -> Groups:
    """Groups (the number of the first member, N) after those of each pair (K x 2) became one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers = np.arange(len(groups))
    edges = np.concatenate([pairs, np.stack([numbers, groups], axis=1)])
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(groups), len(groups)))
    _, component = connected_components(graph, directed=False)
    _, first, group = np.unique(component, return_index=True, return_inverse=True)
    return first[group]


def _limit(candidate: Pairs, count: int, read: Read) -> float:
    """The agreement that different images of this set do not reach."""
    pairs = np.random.default_rng(0).integers(0, count, (DRAWN, 2))
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    pairs = pairs[~np.isin(pairs @ [count, 1], candidate @ [count, 1])]
    alike = _agreement(pairs, np.zeros(len(pairs), bool), read)
    alike = alike[alike > -1]
    if len(alike) < FEWEST_DRAWN:
        return LEAST_AGREEMENT
    # Fisher's transformation makes correlations about normal; one standard deviation above the mean
    # lies the quantile 0.8413, which a few unknown copies among the pairs do not move far.
    usual, high = np.quantile(np.arctanh(np.clip(alike, -0.999, 0.999)), (0.5, 0.8413))
    return max(LEAST_AGREEMENT, float(np.tanh(usual + DEVIATIONS * (high - usual))))


def _is_copy(one: int, other: int, read: Read, limit: float) -> bool:
    pairs = np.array([[one, other]] * 2)
    return bool(_agreement(pairs, np.array([False, True]), read).max() >= limit)


def _agreement(pairs: Pairs, mirrored: Mirrored, read: Read) -> NDArray[np.float64]:
    """How well the detail of each pair (K x 2) agrees, the second one mirrored where told so.

    It is -1 where one of them has too little detail to tell.
    """
    found = np.full(len(pairs), -1.0)
    for start in range(0, len(pairs), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        numbers, places = np.unique(pairs[part], return_inverse=True)
        images = np.stack([shrunk(pixels) for pixels in read(numbers)])
        places = places.reshape(-1, 2)
        telling = has_detail(images)[places].all(axis=1)
        one, other = images[places[telling]].swapaxes(0, 1)
        turned = mirrored[part][telling]
        other[turned] = other[turned, ..., ::-1]
        found[start + np.flatnonzero(telling)] = detail_correlation(one, other)
    return found
