import gzip
import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.images import photograph
from helpers.real_data import REAL_DATA, needs
from imageclf.data.decoding import decode
from imageclf.preparation.alignment import detail_correlation, shrunk
from imageclf.preparation.duplicates import LEAST_AGREEMENT, SMALLEST, joined, same_images
from imageclf.preparation.hashing import thumbnail
from imageclf.sections import Fitting

# Copies, and how many of a hundred are found at least.
COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "quality 30": (lambda image: again(image, "JPEG", quality=30), 98),
    "WebP": (lambda image: again(image, "WEBP", quality=40), 98),
    "half": (lambda image: again(ImageOps.scale(image, 0.5), "JPEG", quality=85), 98),
    "mirrored": (lambda image: again(ImageOps.mirror(image), "JPEG", quality=85), 98),
    "brighter": (lambda image: image.point(lambda value: value * 1.2), 95),
    "cropped": (lambda image: again(cropped(image), "JPEG", quality=85), 60),
}


def again(image: Image.Image, kind: str, **options: object) -> Image.Image:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return Image.open(content)


def cropped(image: Image.Image) -> Image.Image:
    """95 % of the width and of the height, in the middle."""
    beside = round(image.width * 0.025), round(image.height * 0.025)
    return ImageOps.crop(image, (*beside, *beside))


def groups(images: Sequence[Image.Image], side: int = 64, colour: bool = True) -> np.ndarray:
    """As the transform stage finds them, with no two images equal."""
    contents = [io.BytesIO() for _ in images]
    for image, content in zip(images, contents, strict=True):
        image.save(content, "PPM")
    shape = (side, side, 3 if colour else 1)
    pixels = np.stack([decode(content.getvalue(), shape, Fitting("crop")) for content in contents])
    return grouped(pixels)


def grouped(pixels: np.ndarray) -> np.ndarray:
    thumbnails = np.stack([thumbnail(image) for image in pixels])
    digests = [str(number) for number in range(len(pixels))]
    return same_images(digests, thumbnails, pixels.shape[1], lambda numbers: pixels[numbers])


def flowers() -> list[Image.Image]:
    return [Image.open(path) for path in sorted((REAL_DATA / "flowers").glob("*/*.jpg"))]


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of MNIST."""
    images, labels = (
        np.frombuffer(
            gzip.decompress((REAL_DATA / f"mnist/train-{name}-ubyte.gz").read_bytes()), "B"
        )
        for name in ("images-idx3", "labels-idx1")
    )
    return images[16:].reshape(-1, 28, 28)[:count], labels[8:][:count]


@needs("flowers")
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_found_and_nothing_else(name: str) -> None:
    copy, least = COPIES[name]
    originals = flowers()
    count = len(originals)
    found = groups([*originals, *map(copy, originals)])
    assert found[:count].tolist() == list(range(count))
    assert set(found[count:] - np.arange(count)) <= {0, count}
    assert (found[count:] == np.arange(count)).mean() >= least / 100


@needs("mnist")
@pytest.mark.parametrize("side", [28, 64])
def test_no_two_digits_are_copies(side: int) -> None:
    found = groups([Image.fromarray(digit) for digit in digits(1500)[0]], side, colour=False)
    assert found.tolist() == list(range(1500))


@needs("mnist")
def test_many_sixes_are_not_one_copy() -> None:
    images, labels = digits(4000)
    found = groups([Image.fromarray(six) for six in images[labels == 6][:257]], 32, colour=False)
    assert found.tolist() == list(range(257))


def sign(*fingers: float) -> np.ndarray:
    """A hand (uint8, 64 x 64 x 1), its fingers raised at these places, on a smooth background."""
    down, right = np.mgrid[:64, :64] / 63
    hand = np.exp(-((((right - 0.5) / 0.2) ** 2 + ((down - 0.75) / 0.25) ** 2) ** 2))
    for place in fingers:
        hand += np.exp(-((((right - place) / 0.04) ** 2 + ((down - 0.35) / 0.3) ** 2) ** 2))
    grey = 60 + 50 * right + 30 * down + 110 * np.minimum(hand, 1)
    return grey.astype(np.uint8)[..., None]


def test_hand_signs_that_look_alike_are_not_copies() -> None:
    """``6`` and ``w`` are three fingers both, held a little wider."""
    signs = {"6": sign(0.36, 0.48, 0.6), "w": sign(0.33, 0.48, 0.63), "2": sign(0.36, 0.48)}
    pixels = np.stack([*signs.values()])
    assert grouped(pixels).tolist() == [0, 1, 2]


def scenes(*seeds: int) -> np.ndarray:
    return np.stack([np.asarray(photograph(seed, 64, 64)) for seed in seeds])


def varied(images: np.ndarray, by: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, by, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


def test_images_that_are_all_alike_need_more_agreement() -> None:
    """As X-rays of one kind: what all have in common makes none the copy of another."""
    patients = varied(scenes(*[0] * 60), 3)
    small = np.stack([shrunk(image) for image in patients])
    assert (detail_correlation(small[1:], small[:-1]) > LEAST_AGREEMENT).mean() > 0.5
    copies = varied(patients[:5], 0.4)
    found = grouped(np.concatenate([patients, copies]))
    assert found.tolist() == [*range(60), *range(5)]


def test_a_chain_of_images_each_like_the_next_is_no_group() -> None:
    """A camera that pans: every frame is nearly the last one, and the last is not the first."""
    scene = np.asarray(photograph(0, 640, 256))
    frames = [scene[::4, start : start + 256 : 4] for start in range(0, 384, 4)]
    pixels = np.concatenate([scenes(*range(1, 200)), frames])
    found = grouped(pixels)
    assert found[:199].tolist() == list(range(199))
    sizes = np.bincount(found)
    assert 2 < sizes.max() < len(frames) / 2
    small = np.stack([shrunk(image) for image in pixels])
    copies = found < np.arange(len(found))
    assert (detail_correlation(small[found[copies]], small[copies]) >= LEAST_AGREEMENT).all()


def test_all_copies_of_an_image_are_one_group_however_many() -> None:
    copies = varied(scenes(*[0] * 20), 1)
    found = grouped(np.concatenate([scenes(*range(1, 80)), copies]))
    assert found.tolist() == [*range(79), *[79] * 20]


def test_small_images_are_the_same_only_where_every_pixel_is() -> None:
    scene = np.asarray(photograph(0, SMALLEST - 1, SMALLEST - 1))
    assert grouped(np.stack([scene, scene // 2 * 2])).tolist() == [0, 1]
    large = np.asarray(photograph(0, SMALLEST, SMALLEST))
    assert grouped(np.stack([large, large // 2 * 2])).tolist() == [0, 0]


def test_equal_digests_need_no_pixels() -> None:
    def read(_: np.ndarray) -> list[np.ndarray]:
        raise AssertionError

    assert same_images(["x", "y", "x", "z", "y"], None, 64, read).tolist() == [0, 1, 0, 3, 1]


def test_a_copy_of_one_of_several_equal_images_joins_them() -> None:
    scene = np.asarray(photograph(0, 64, 64))
    pixels = np.stack([scene, np.asarray(photograph(1, 64, 64)), scene, scene // 2 * 2])
    thumbnails = np.stack([thumbnail(image) for image in pixels])
    found = same_images(["x", "y", "x", "z"], thumbnails, 64, lambda numbers: pixels[numbers])
    assert found.tolist() == [0, 1, 0, 0]


def test_groups_are_joined_by_chains_of_pairs() -> None:
    joined_groups = np.array([0, 1, 0, 3, 4, 4])
    assert joined(joined_groups, np.array([[2, 1], [1, 3]])).tolist() == [0, 0, 0, 0, 4, 4]
    assert joined(joined_groups, np.empty((0, 2), np.int64)).tolist() == joined_groups.tolist()
