import gzip
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.images import photograph
from helpers.real_data import REAL_DATA, needs
from imageclf.preparation import duplicates
from imageclf.preparation.duplicates import (
    joined,
    near_pairs,
    perceptual_hash,
    same_images,
    thumbnail,
)

COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "quality 30": lambda image: again(image, "JPEG", quality=30),
    "WebP": lambda image: again(image, "WEBP", quality=40),
    "half": lambda image: again(ImageOps.scale(image, 0.5), "JPEG", quality=85),
}

RAMP = np.tile(np.arange(9, dtype=np.uint8) * 25, (8, 1))


def again(image: Image.Image, kind: str, **options: object) -> Image.Image:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return Image.open(content)


def small(image: Image.Image) -> np.ndarray:
    return thumbnail(np.asarray(ImageOps.fit(image.convert("RGB"), (64, 64))))


def flowers() -> list[Image.Image]:
    return [Image.open(path) for path in sorted((REAL_DATA / "flowers").glob("*/*.jpg"))]


@needs("flowers")
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_found_and_nothing_else(name: str) -> None:
    images = flowers()
    thumbnails = np.stack([small(image) for image in images])
    copies = np.stack([small(COPIES[name](image)) for image in images])
    count = len(images)
    pairs = near_pairs(np.concatenate([thumbnails, copies]))
    found = {tuple(sorted(pair)) for pair in pairs.tolist() if pair[0] != pair[1]}
    assert found == {(i, i + count) for i in range(count)}


def test_the_quick_search_finds_what_comparing_all_pairs_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(0)
    thumbnails = np.stack([thumbnail(np.asarray(photograph(i % 300))) for i in range(900)])
    noise = generator.integers(-6, 7, thumbnails.shape)
    thumbnails = np.clip(thumbnails + noise, 0, 255).astype(np.uint8)
    hashes = perceptual_hash(thumbnails)
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    near = {(i, j) for i, j in np.argwhere(distance <= duplicates.MOST_BITS).tolist() if i < j}
    found = joined(np.arange(900), near_pairs(thumbnails))
    assert found.tolist() == joined(np.arange(900), np.array(sorted(near))).tolist()
    assert len(near) > 500


def test_images_of_equal_hash_are_told_apart_by_their_colours() -> None:
    red, blue = (np.zeros((8, 9, 3), np.uint8) for _ in range(2))
    red[..., 0], blue[..., 2] = RAMP, RAMP
    thumbnails = np.stack([red, blue, red, blue, red + 2])
    assert same_images(["a", "b", "c", "d", "e"], thumbnails).tolist() == [0, 1, 0, 1, 0]


def test_flat_images_are_the_same_only_where_every_pixel_is() -> None:
    digit = np.zeros((8, 9, 1), np.uint8)
    digit[2:6, 4:6] = 200
    thumbnails = np.stack([digit, digit, np.zeros_like(digit)])
    assert same_images(["a", "b", "c"], thumbnails).tolist() == [0, 1, 2]


@needs("mnist")
def test_digits_are_not_taken_for_copies_of_each_other() -> None:
    content = gzip.decompress((REAL_DATA / "mnist/train-images-idx3-ubyte.gz").read_bytes())
    digits = np.frombuffer(content, np.uint8, 2000 * 28 * 28, offset=16).reshape(-1, 28, 28, 1)
    thumbnails = np.stack([thumbnail(digit) for digit in digits])
    same = same_images([str(number) for number in range(2000)], thumbnails)
    assert (same != np.arange(2000)).mean() < 0.01


def test_equal_digests_need_no_thumbnails() -> None:
    assert same_images(["x", "y", "x", "z", "y"], None).tolist() == [0, 1, 0, 3, 1]


def test_groups_are_joined_by_chains_of_pairs() -> None:
    groups = np.array([0, 1, 0, 3, 4, 4])
    assert joined(groups, np.array([[2, 1], [1, 3]])).tolist() == [0, 0, 0, 0, 4, 4]
    assert joined(groups, np.empty((0, 2), np.int64)).tolist() == groups.tolist()


def test_the_hash_tells_whether_each_pixel_is_brighter_than_its_neighbour() -> None:
    hashes = perceptual_hash(np.stack([RAMP, RAMP[:, ::-1]])[..., None])
    assert hashes.tolist() == [2**64 - 1, 0]
