"""Images that are the same, or nearly so: copies, re-encoded, scaled, slightly cropped.

Near-duplicates are found by a perceptual hash: in an image shrunk to 9 x 8 greys, whether each
pixel is brighter than its left neighbour, 64 bits in all (dHash, by N. Krawetz,
https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html).

The limits were chosen on 2,202 photographs: of 6,606 copies re-encoded at quality 30, halved or as
WebP one was 8 bits and 0.10 of the contrast away and all others less; no two different photographs
came nearer than 10 bits and 0.39, or 0.29 with other hashes. One photograph of a hundred has fewer
than 40 of 64 steps above 2 levels, and none fewer than 35; of MNIST's digits, on black, half have
fewer than 30, and of the first 8,000 digits 102 are taken for copies of each other.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from cykooz_resizer import FilterType
from numpy.typing import NDArray

from imageclf.data.decoding import resized
from imageclf.data.prepared import Pixels

THUMBNAIL = (8, 9)  # height, width
MOST_BITS = 7  # by which the hashes of near-duplicates differ
MOST_DIFFERENCE = 0.13  # of their thumbnails on average, as a share of the contrast
FEWEST_STEPS = 34  # of 64, between neighbours in a thumbnail that tells images apart
FLAT = 2.0  # levels of 255, up to which neighbours are as good as equal
LUMA = {1: (1.0,), 3: (0.299, 0.587, 0.114)}  # of the channels, ITU-R BT.601

Groups = NDArray[np.int64]
Pairs = NDArray[np.int64]


def thumbnail(pixels: Pixels) -> Pixels:
    """An image (uint8, H x W x C) shrunk to 8 x 9 x C."""
    return resized(pixels, *THUMBNAIL, FilterType.box)


def same_images(digests: Sequence[str], thumbnails: Pixels | None) -> Groups:
    """The number of the first image that each one is the same as, its own where there is none.

    Args:
        digests: of the pixels of N images; equal ones mean equal images.
        thumbnails: uint8, N x 8 x 9 x C; without them only equal images are found.
    """
    _, first, group = np.unique(np.asarray(digests), return_index=True, return_inverse=True)
    same = first[group]
    if thumbnails is None:
        return same
    kept = np.sort(first)
    return joined(same, kept[near_pairs(thumbnails[kept])])


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


def near_pairs(thumbnails: Pixels) -> Pairs:
    """Near-duplicates among N images, as pairs of their numbers: K x 2, not every pair of a group.

    Hashes that differ in up to 7 of 64 bits agree in at least one of their eight bytes, so only
    images that share a byte are compared. Images that are flat for the most part, such as a digit
    on black, are left out: in 8 x 9 pixels different ones look the same.
    """
    telling = np.flatnonzero((np.abs(_steps(thumbnails)) > FLAT).sum(axis=(1, 2)) >= FEWEST_STEPS)
    return telling[_near_pairs(thumbnails[telling])]


def _near_pairs(thumbnails: Pixels) -> Pairs:
    hashes = perceptual_hash(thumbnails)
    unique, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    pairs = [*_alike(thumbnails, group), np.empty((0, 2), np.int64)]
    octets = unique.view(np.uint8).reshape(-1, 8)
    for column in octets.T:
        for one, other in _equal_pairs(column):
            near = np.bitwise_count(unique[one] ^ unique[other]) <= MOST_BITS
            candidates = np.stack([first[one[near]], first[other[near]]], axis=1)
            pairs.append(candidates[_close(thumbnails, candidates)])
    return np.unique(np.concatenate(pairs), axis=0)


def perceptual_hash(thumbnails: Pixels) -> NDArray[np.uint64]:
    """The dHash of thumbnails (uint8, N x 8 x 9 x C): uint64, N."""
    bits = (_steps(thumbnails) > 0).reshape(-1, 64)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def _steps(thumbnails: Pixels) -> NDArray[np.float64]:
    """By how many levels each pixel is brighter than its left neighbour: N x 8 x 8."""
    return np.diff(thumbnails @ np.array(LUMA[thumbnails.shape[3]]), axis=2)


def _close(thumbnails: Pixels, pairs: Pairs) -> NDArray[np.bool_]:
    one, other = thumbnails[pairs[:, 0]], thumbnails[pairs[:, 1]]
    difference = np.maximum(one, other) - np.minimum(one, other)
    pixels = (1, 2, 3)
    limit = MOST_DIFFERENCE * np.maximum(one.std(axis=pixels), other.std(axis=pixels))
    close: NDArray[np.bool_] = difference.mean(axis=pixels) <= limit
    return close


def _alike(thumbnails: Pixels, group: Groups) -> Iterator[Pairs]:
    """Pairs of each image with the first one of equal hash (``group``) that it is close to."""
    waiting = np.flatnonzero(np.bincount(group)[group] > 1)
    while len(waiting):
        _, place, of = np.unique(group[waiting], return_index=True, return_inverse=True)
        pairs = np.stack([waiting[place][of], waiting], axis=1)
        close = _close(thumbnails, pairs)
        yield pairs[close]
        waiting = waiting[~close]


def _equal_pairs(values: Pixels) -> Iterator[tuple[Groups, Groups]]:
    """All pairs of places with equal values, in arrays of no more than N pairs each."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    start = np.arange(len(values))
    for distance in range(1, len(values)):
        start = start[: np.searchsorted(start, len(values) - distance)]
        start = start[ranked[start] == ranked[start + distance]]
        if not len(start):
            return
        yield order[start], order[start + distance]
