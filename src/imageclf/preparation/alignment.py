"""Whether two images are copies of each other: their fine detail, laid over each other, agrees.

One image is shifted and scaled by a few percent until it lies best on the other, by Gauss-Newton
steps on the greys (B. Lucas and T. Kanade, IJCAI 1981, 674-679). What then is compared is what a
blur removes, because the coarse parts of different images of one kind look alike.
"""

from typing import Any

import numpy as np
from cykooz_resizer import FilterType
from numpy.typing import NDArray

from imageclf.data.decoding import resized
from imageclf.data.prepared import Pixels

SIDE = 32  # pixels of the images that are compared, at most
MARGIN = 2  # pixels beside the edge, of which a blur would need others beyond it
BLUR = 1.0  # standard deviation in those pixels, of what is left out of the comparison
STEPS = 6
MOST_SHIFT = 0.12  # of the side
MOST_SCALE = 0.13
INSIDE = 0.999  # weight of the pixels that a sampled one is made of
LEAST_OVERLAP = 0.75
FAINT = 0.1  # of the root mean square of an image's detail: less is as good as none
LEAST_DETAILED = 0.55  # of the pixels, of an image whose detail tells it from others

Images = NDArray[Any]  # float32


def shrunk(pixels: Pixels) -> Images:
    """An image (uint8, H x W x C) as ``detail_correlation`` takes it: C x S x S."""
    side = min(SIDE, *pixels.shape[:2])
    return np.moveaxis(resized(pixels, side, side, FilterType.box), 2, 0).astype(np.float32)


def has_detail(images: Images) -> NDArray[np.bool_]:
    """Whether there is detail nearly everywhere in images (K x C x S x S), as in photographs.

    A few strokes or edges on an even ground may agree with those of many other images.
    """
    detail = _detail(images.mean(axis=1))
    usual = np.sqrt((detail * detail).mean(axis=(1, 2), keepdims=True))
    found: NDArray[np.bool_] = (np.abs(detail) > FAINT * usual).mean(axis=(1, 2)) >= LEAST_DETAILED
    return found


def detail_correlation(ones: Images, others: Images) -> NDArray[np.float64]:
    """How well the detail of images agrees with that of others laid over them.

    Args:
        ones: K x C x S x S.
        others: likewise.

    Returns:
        K correlations, -1 where the images overlap in less than ``LEAST_OVERLAP``.
    """
    rows, columns = _alignment(ones.mean(axis=1), others.mean(axis=1))
    moved = rows[:, None] @ others @ columns[:, None].mT
    inside = _inside(rows, columns)
    whole = inside[:, None]
    one, other = (
        _centred(_detail(_centred(images, whole)), _inner(whole)) for images in (ones, moved)
    )
    lengths = _squares(one, one) * _squares(other, other)
    agreement = _squares(one, other) / np.sqrt(np.maximum(lengths, 1e-6))
    return np.where(inside.mean(axis=(1, 2)) >= LEAST_OVERLAP, agreement, -1.0)


def _squares(ones: Images, others: Images) -> NDArray[np.float64]:
    products: NDArray[np.float64] = np.einsum("kcij,kcij->k", ones, others, dtype=np.float64)
    return products


def _alignment(ones: Images, others: Images) -> tuple[Images, Images]:
    """Weights that move the rows and the columns of the others (K x S x S) onto the ones."""
    count, side = ones.shape[:2]
    position = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    down, right = np.gradient(ones, axis=(1, 2))
    slopes = np.stack(
        [np.ones_like(ones), down, right, down * position[:, None], right * position], 1
    )
    slopes = slopes.reshape(count, 5, side * side)
    normal = (slopes @ slopes.mT).astype(np.float64)
    normal += np.eye(5) * (1e-3 * np.diagonal(normal, axis1=1, axis2=2)[:, None] + 1e-3)
    solution = np.linalg.inv(normal).astype(np.float32) @ slopes
    limit = np.float32(MOST_SHIFT * side)
    shift, scale = np.zeros((count, 2), np.float32), np.ones((count, 2), np.float32)
    for _ in range(STEPS):
        rows, columns = (_sampling(position, scale[:, axis], shift[:, axis]) for axis in range(2))
        inside = _inside(rows, columns)
        target = _centred(ones, inside)
        moved = _centred(rows @ others @ columns.mT, inside)
        contrast = _norm(target) / np.maximum(_norm(moved), 1e-3)
        error = moved * contrast - target
        step = (solution @ error.reshape(count, side * side, 1))[:, 1:, 0]
        shift = np.clip(shift - step[:, :2], -limit, limit)
        scale = np.clip(scale - step[:, 2:], 1 - MOST_SCALE, 1 + MOST_SCALE)
    return rows, columns


def _sampling(position: Images, scale: Images, shift: Images) -> Images:
    """Weights of linear interpolation at positions scaled and shifted: K x S x S."""
    places = position * scale[:, None] + shift[:, None]
    weights: Images = np.maximum(0, 1 - np.abs(places[..., None] - position))
    return weights


def _inside(rows: Images, columns: Images) -> Images:
    """1 where a moved image has pixels, 0 elsewhere: K x S x S."""
    down, right = ((weights.sum(axis=2) > INSIDE).astype(np.float32) for weights in (rows, columns))
    inside: Images = down[:, :, None] * right[:, None]
    return inside


def _centred(images: Images, inside: Images) -> Images:
    axes = tuple(range(1, images.ndim))
    whole = np.broadcast_to(inside, images.shape)
    count = np.maximum(whole.sum(axis=axes, keepdims=True), 1)
    centred: Images = (images - (images * whole).sum(axis=axes, keepdims=True) / count) * whole
    return centred


def _norm(images: Images) -> Images:
    norm: Images = np.sqrt((images * images).sum(axis=(1, 2), keepdims=True))
    return norm


def _detail(images: Images) -> Images:
    """What a blur removes from images (... x S x S), but for the margin, where it means nothing."""
    position = np.arange(images.shape[-1])
    weights = np.exp(-((position[:, None] - position) ** 2) / (2 * BLUR**2))
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return _inner(images - weights @ images @ weights.T)


def _inner(images: Images) -> Images:
    inner: Images = images[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    return inner
