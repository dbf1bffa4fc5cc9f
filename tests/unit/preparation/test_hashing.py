import numpy as np
import pytest

from helpers.images import photograph
from imageclf.preparation import hashing
from imageclf.preparation.hashing import candidates, perceptual_hash, thumbnail

RAMP = np.tile(np.arange(9, dtype=np.uint8) * 25, (8, 1))[..., None]


def noisy_thumbnails(count: int, scenes: int) -> np.ndarray:
    thumbnails = np.stack([thumbnail(np.asarray(photograph(i % scenes))) for i in range(count)])
    noise = np.random.default_rng(0).integers(-9, 10, thumbnails.shape)
    return np.clip(thumbnails + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("at_once", [16, 1000, 1 << 20])
def test_the_quick_search_finds_what_comparing_all_pairs_finds(
    monkeypatch: pytest.MonkeyPatch, at_once: int, mirrored: bool
) -> None:
    monkeypatch.setattr(hashing, "AT_ONCE", at_once)
    monkeypatch.setattr(hashing, "MOST_CANDIDATES", 1000)
    monkeypatch.setattr(hashing, "LEAST_LIKENESS", -2)
    thumbnails = noisy_thumbnails(300, 100)
    others = thumbnails[:, :, ::-1] if mirrored else thumbnails
    differing = perceptual_hash(thumbnails)[:, None] ^ perceptual_hash(others)
    shared = (differing[..., None].view(np.uint8) == 0).any(axis=2)
    near = np.triu(shared & (np.bitwise_count(differing) <= hashing.MOST_BITS), 1)
    pairs, turned = candidates(thumbnails)
    found = {tuple(pair) for pair in pairs[turned == mirrored].tolist()}
    assert found == {tuple(pair) for pair in np.argwhere(near).tolist()}
    assert bool(found) != mirrored


def test_pairs_come_in_the_order_of_the_later_image_and_the_nearest_few_of_each() -> None:
    pairs, _ = candidates(noisy_thumbnails(200, 10))
    assert pairs[:, 1].tolist() == sorted(pairs[:, 1])
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert (pairs[:, 0] % 10 == pairs[:, 1] % 10).all()
    assert np.bincount(pairs[:, 1])[50:].tolist() == [hashing.MOST_CANDIDATES] * 150


def test_a_mirrored_image_is_proposed_and_one_of_other_colours_is_not() -> None:
    scene = thumbnail(np.asarray(photograph(1)))
    pairs, mirrored = candidates(np.stack([scene, scene[:, ::-1], scene[..., ::-1]]))
    assert (pairs.tolist(), mirrored.tolist()) == ([[0, 1]], [True])


def test_flat_images_are_not_proposed() -> None:
    digit = np.zeros((8, 9, 1), np.uint8)
    digit[2:6, 4:6] = 200
    assert not len(candidates(np.stack([digit, digit, np.zeros_like(digit)]))[0])
    assert not len(candidates(np.empty((0, 8, 9, 1), np.uint8))[0])


def test_the_hash_tells_whether_each_pixel_is_brighter_than_its_neighbour() -> None:
    hashes = perceptual_hash(np.stack([RAMP, RAMP[:, ::-1]]))
    assert hashes.tolist() == [2**64 - 1, 0]
