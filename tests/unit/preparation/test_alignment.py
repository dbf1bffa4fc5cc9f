import numpy as np
import pytest
from PIL import Image

from helpers.images import photograph
from imageclf.preparation.alignment import detail_correlation, has_detail, shrunk
from imageclf.preparation.duplicates import LEAST_AGREEMENT

SCENE = photograph(0, 400, 400)


def agreement(one: Image.Image, other: Image.Image) -> float:
    images = (np.asarray(image.resize((64, 64), Image.Resampling.BOX)) for image in (one, other))
    return detail_correlation(*(shrunk(np.atleast_3d(image))[None] for image in images))[0]


@pytest.mark.parametrize("box", [(0, 0, 380, 380), (20, 0, 400, 390), (12, 15, 388, 398)])
def test_a_crop_agrees_with_the_whole_once_it_is_aligned(box: tuple[int, ...]) -> None:
    cropped = SCENE.crop(box)
    assert agreement(SCENE, cropped) > 0.97
    assert agreement(cropped, SCENE) > 0.97


def test_brightness_and_contrast_do_not_matter() -> None:
    assert agreement(SCENE, SCENE.point(lambda value: 40 + value * 0.5)) > 0.99


def test_other_scenes_other_colours_and_a_mirrored_scene_do_not_agree() -> None:
    red, green, blue = SCENE.split()
    others = [photograph(seed, 400, 400) for seed in range(1, 30)]
    others += [Image.merge("RGB", (blue, red, green)), Image.fromarray(np.asarray(SCENE)[:, ::-1])]
    assert max(agreement(SCENE, other) for other in others) < 0.6


def test_what_is_coarse_is_not_compared() -> None:
    """Two images of the same shading, each with a fine pattern of its own."""
    shading = np.linspace(40, 200, 64)[:, None] + np.zeros(64)
    grain = np.random.default_rng(0).normal(0, 6, (2, 64, 64))
    one, other = (Image.fromarray((shading + some).astype(np.uint8)) for some in grain)
    assert np.corrcoef(np.ravel(one), np.ravel(other))[0, 1] > 0.98
    assert agreement(one, other) < 0.3


def test_images_without_detail_agree_with_nothing() -> None:
    blank = Image.new("L", (64, 64), 90)
    assert agreement(blank, blank) < LEAST_AGREEMENT
    assert agreement(blank, SCENE.convert("L")) < LEAST_AGREEMENT


def test_strokes_on_an_even_ground_are_too_little_detail() -> None:
    digit = np.zeros((64, 64), np.uint8)
    digit[12:52, 28:36] = 220
    images = [np.asarray(SCENE.convert("L").resize((64, 64))), digit, np.full_like(digit, 90)]
    dark = (images[0] // 8, digit // 8)
    small = np.stack([shrunk(image[..., None]) for image in (*images, *dark)])
    assert has_detail(small).tolist() == [True, False, False, True, False]
