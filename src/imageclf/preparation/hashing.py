"""Which images may be copies of each other: a search by perceptual hash, quick and not strict.

In an image shrunk to 9 x 8 greys the hash tells whether each pixel is brighter than its left
neighbour, 64 bits in all (dHash, by N. Krawetz,
https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html). What it proposes
``alignment`` confirms or rejects. docs/duplicates.md holds the measurements behind the limits.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
from cykooz_resizer import FilterType
from numpy.typing import NDArray

from imageclf.data.decoding import resized
from imageclf.data.prepared import Pixels

THUMBNAIL = (8, 9)  # height, width
MOST_BITS = 12  # by which the hashes of a pair differ
LEAST_LIKENESS = 0.75  # correlation of the thumbnails of a pair
MOST_CANDIDATES = (
    4  # earlier images that an image is compared with, those with the nearest thumbnails
)
FEWEST_STEPS = 34  # of 64, between neighbours in a thumbnail that tells images apart
FLAT = 2.0  # levels of 255, up to which neighbours are as good as equal
LUMA = {1: (1.0,), 3: (0.299, 0.587, 0.114)}  # of the channels, ITU-R BT.601
AT_ONCE = 1 << 20  # pairs of hashes in memory

Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]
Numbers = NDArray[np.int32]
Thumbnails = NDArray[np.float32]


def thumbnail(pixels: Pixels) -> Pixels:
    """An image (uint8, H x W x C) shrunk to 8 x 9 x C."""
    return resized(pixels, *THUMBNAIL, FilterType.box)


def candidates(thumbnails: Pixels) -> tuple[Pairs, NDArray[np.bool_]]:
    """Pairs of images that may be copies, the earlier one first.

    Images that are flat for the most part, such as a digit on black, are left out: in 8 x 9 pixels
    different ones look the same. The hashes of a pair agree in one of their eight bytes and differ
    in at most ``MOST_BITS`` bits; where they differ in fewer than eight, the first holds always.

    Args:
        thumbnails: uint8, N x 8 x 9 x C.

    Returns:
        K x 2 numbers of images, sorted by the second one, at most ``2 * MOST_CANDIDATES`` for each;
        and bool, K: whether the second image has to be mirrored.
    """
    steps = _steps(thumbnails)
    telling = np.flatnonzero((np.abs(steps) > FLAT).sum(axis=(1, 2)) >= FEWEST_STEPS)
    upright = _normalised(thumbnails[telling])
    hashes = _hashes(steps[telling])
    turned = _hashes(-steps[telling, :, ::-1])
    found = [
        telling[_search(hashes, hashes, upright, upright)],
        telling[_search(hashes, turned, upright, upright[:, :, ::-1])],
    ]
    pairs = np.concatenate(found)
    mirrored = np.repeat([False, True], [len(some) for some in found])
    order = np.lexsort((mirrored, pairs[:, 0], pairs[:, 1]))
    return pairs[order], mirrored[order]


def perceptual_hash(thumbnails: Pixels) -> Hashes:
    """The dHash of thumbnails (uint8, N x 8 x 9 x C): uint64, N."""
    return _hashes(_steps(thumbnails))


def _hashes(steps: NDArray[np.float64]) -> Hashes:
    return np.packbits((steps > 0).reshape(-1, 64), axis=1).view(np.uint64).ravel()


def _steps(thumbnails: Pixels) -> NDArray[np.float64]:
    """By how many levels each pixel is brighter than its left neighbour: N x 8 x 8."""
    return np.diff(thumbnails @ np.array(LUMA[thumbnails.shape[3]]), axis=2)


def _normalised(thumbnails: Pixels) -> Thumbnails:
    """Thumbnails (N x 8 x 9 x C) of mean 0 and length 1: their products are correlations."""
    values = thumbnails.astype(np.float32)
    values -= values.mean(axis=(1, 2, 3), keepdims=True)
    lengths = np.sqrt((values * values).sum(axis=(1, 2, 3), keepdims=True))
    normalised: Thumbnails = values / np.maximum(lengths, 1e-6)
    return normalised


def _search(hashes: Hashes, others: Hashes, thumbnails: Thumbnails, turned: Thumbnails) -> Pairs:
    """For each of the ``others`` the nearest earlier ones of the ``hashes``: K x 2."""
    kept = [np.empty((0, 2), np.int64)]
    for near in _near(hashes, others):
        likeness = _products(thumbnails, turned, near)
        alike = likeness >= LEAST_LIKENESS
        pairs = near[alike][np.lexsort((-likeness[alike], near[alike, 1]))]
        rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 1], pairs[:, 1])
        kept.append(pairs[rank < MOST_CANDIDATES])
    return np.concatenate(kept)


def _products(ones: Thumbnails, others: Thumbnails, pairs: Pairs) -> Thumbnails:
    parts = np.array_split(pairs, len(pairs) // (AT_ONCE >> 4) + 1)
    return np.concatenate(
        [np.einsum("kijc,kijc->k", ones[part[:, 0]], others[part[:, 1]]) for part in parts]
    )


def _near(hashes: Hashes, others: Hashes) -> Iterator[Pairs]:
    """Pairs of a hash and a later one of the others that agree in a byte and in most bits.

    About ``AT_ONCE`` pairs are compared at a time, all those of a later one together.
    """
    tables = [
        _Table.of(*columns) for columns in zip(_octets(hashes).T, _octets(others).T, strict=True)
    ]
    compared = np.cumsum(np.sum([table.lengths for table in tables], axis=0))
    count = len(hashes)
    start = 0
    while start < count:
        done = compared[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(compared, done + AT_ONCE)))
        part = slice(start, end)
        found = []
        for table in tables:
            earlier, lengths = table.members(part)
            near = np.bitwise_count(hashes[earlier] ^ np.repeat(others[part], lengths)) <= MOST_BITS
            later = np.repeat(np.arange(start, end), lengths)[near]
            found.append(later * np.int64(count) + earlier[near])
        later, earlier = np.divmod(np.unique(np.concatenate(found)), count)
        yield np.stack([earlier, later], axis=1)
        start = end


class _Table(NamedTuple):
    """Numbers of images by one byte of their hash, and where each image's equals stand there.

    ``members[first : first + length]`` of each image are the earlier ones that agree with it.
    """

    order: Numbers
    first: Numbers
    lengths: Numbers

    @classmethod
    def of(cls, column: Pixels, wanted: Pixels) -> Self:
        """Of the byte of the hashes and of the others (N each)."""
        count = len(column)
        order = np.argsort(column, kind="stable")
        keys = column[order] * np.int64(count) + order
        first = np.searchsorted(keys, wanted * np.int64(count))
        last = np.searchsorted(keys, wanted * np.int64(count) + np.arange(count))
        return cls(order.astype(np.int32), first.astype(np.int32), (last - first).astype(np.int32))

    def members(self, part: slice) -> tuple[Numbers, Numbers]:
        """The earlier images that agree with each one of a part, and how many for each."""
        lengths = self.lengths[part]
        begin = np.cumsum(lengths, dtype=np.int32) - lengths
        places = np.arange(lengths.sum(), dtype=np.int32) + np.repeat(
            self.first[part] - begin, lengths
        )
        return self.order[places], lengths


def _octets(hashes: Hashes) -> Pixels:
    return hashes.view(np.uint8).reshape(-1, 8)
