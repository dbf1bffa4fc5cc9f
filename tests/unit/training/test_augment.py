import math
from typing import Any

import pytest
import torch

from helpers.params import make_params
from imageclf.params import Augment
from imageclf.training import augment as augmentation
from imageclf.training.draws import Draws, seed_step


def settings(**changes: Any) -> Augment:
    return make_params(**{f"augment__{name}": value for name, value in changes.items()}).augment


def augment(images: torch.Tensor, params: Augment) -> torch.Tensor:
    return augmentation.augment(images, params, all_of(images))


def mix(
    images: torch.Tensor, labels: torch.Tensor, classes: int, params: Augment
) -> tuple[torch.Tensor, torch.Tensor]:
    return augmentation.mix(images, labels, classes, params, all_of(images))


def all_of(images: torch.Tensor) -> Draws:
    return Draws(len(images), slice(0, len(images)), images.device)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def noise(count: int = 64, channels: int = 1, side: int = 12) -> torch.Tensor:
    return torch.rand(count, channels, side, side) * 255


def test_nothing_asked_for_changes_nothing() -> None:
    images = noise()
    assert augment(images, settings()) is images


def test_the_same_seed_repeats_every_change() -> None:
    everything = settings(shift=2, flip=True, rotate=30.0, crop_scale=0.5, brightness=0.2, cutout=3)
    images = noise()
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(augment(images, everything))
    assert torch.equal(*results)


def test_shift_moves_each_image_by_whole_pixels_and_fills_with_black() -> None:
    images = noise()
    shifted = augment(images, settings(shift=2))
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for original, moved in zip(padded, shifted, strict=True):
        places = [
            (x, y)
            for y in range(5)
            for x in range(5)
            if torch.allclose(original[:, y : y + 12, x : x + 12], moved, atol=0.01)
        ]
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) > 15  # of 25 possible moves


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = noise(200)
    flipped = augment(images, settings(flip=True))
    same = torch.isclose(flipped, images, atol=0.01).all(dim=(1, 2, 3))
    mirrored = torch.isclose(flipped, images.flip(-1), atol=0.01).all(dim=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 60 < mirrored.sum() < 140


def test_rotation_turns_by_at_most_the_angle_and_each_image_by_its_own() -> None:
    side = 41
    images = torch.zeros(100, 1, side, side)
    images[:, :, 4:8, 20:21] = 255.0  # a mark above the centre
    turned = augment(images, settings(rotate=30.0))
    place = torch.arange(side) - 20.0
    mass = turned[:, 0].sum(dim=(1, 2))
    x = (turned[:, 0].sum(dim=1) * place).sum(dim=1) / mass
    y = (turned[:, 0].sum(dim=2) * place).sum(dim=1) / mass
    angles = torch.atan2(x, -y) * 180 / math.pi
    assert angles.abs().max() < 31
    assert angles.std() == pytest.approx(60 / math.sqrt(12), rel=0.2)  # uniform on -30..30


def test_crop_enlarges_a_part_that_lies_within_the_image() -> None:
    ramp = torch.arange(32.0).expand(100, 1, 32, 32).contiguous()
    cropped = augment(ramp, settings(crop_scale=0.25))
    # Of a horizontal ramp, the share of the side that is seen is the slope of what comes out.
    slope = (cropped[:, 0, 16, 24] - cropped[:, 0, 16, 8]) / 16
    assert slope.min() >= 0.5 - 1e-3
    assert slope.max() <= 1 + 1e-3
    assert slope.std() > 0.05
    inner = cropped[:, 0, 2:-2, 2:-2]
    assert inner.min() >= 0
    assert (inner > 0).all()  # nothing from outside, which is black


def test_brightness_scales_and_contrast_spreads_around_the_mean() -> None:
    images = 100 + 20 * torch.rand(50, 1, 8, 8)
    factor = augment(images, settings(brightness=0.3)) / images
    assert torch.allclose(factor.amax(dim=(1, 2, 3)), factor.amin(dim=(1, 2, 3)), atol=1e-4)
    assert 0.7 <= factor.min() < 0.8
    assert 1.2 < factor.max() <= 1.3
    spread = augment(images, settings(contrast=0.5))
    assert torch.allclose(spread.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), atol=1e-3)
    ratio = spread.std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))
    assert 0.5 <= ratio.min() < 0.65
    assert 1.35 < ratio.max() <= 1.5


def test_cutout_blackens_one_square_of_the_side_asked_for() -> None:
    cut = augment(torch.full((50, 3, 12, 12), 9.0), settings(cutout=4))
    black = cut == 0
    assert (black.sum(dim=(1, 2, 3)) == 3 * 16).all()
    assert (black.any(dim=3).sum(dim=2) == 4).all()
    assert len({tuple(image.flatten().tolist()) for image in black}) > 10


def test_erasing_blackens_a_box_of_random_shape_in_a_share_of_the_images() -> None:
    side = 64
    erased = augment(torch.full((2000, 3, side, side), 9.0), settings(erase=0.25))
    black = (erased == 0).all(dim=1)
    assert torch.equal(black, (erased == 0).any(dim=1))
    heights, widths = black.any(dim=2).sum(dim=1), black.any(dim=1).sum(dim=1)
    assert torch.equal(black.sum(dim=(1, 2)), heights * widths)  # a whole box inside the image
    hit = heights > 0
    assert hit.float().mean().item() == pytest.approx(0.25, abs=0.03)
    area = (heights * widths)[hit] / side**2
    ratio = (heights / widths)[hit]
    assert 0.015 < area.min() < 0.04
    assert 0.29 < area.max() < 0.35
    assert area.mean().item() == pytest.approx(0.175, abs=0.02)
    assert 0.25 < ratio.min() < 0.35
    assert 2.9 < ratio.max() < 3.7
    assert ratio.log().mean().item() == pytest.approx(math.log(0.99) / 2, abs=0.1)


def test_mixup_blends_images_and_labels_by_the_same_share() -> None:
    labels = torch.arange(64) % 4
    images = labels.float()[:, None, None, None].expand(64, 1, 6, 6) * 10
    mixed, target = mix(images, labels, 4, settings(mixup=0.4))
    assert torch.allclose(target.sum(dim=1), torch.ones(64))
    expected = (target * torch.arange(4) * 10).sum(dim=1)
    assert torch.allclose(mixed[:, 0, 0, 0], expected, atol=1e-3)
    assert (target.amax(dim=1) < 0.99).any()


def test_cutmix_pastes_a_square_and_weighs_labels_by_its_area() -> None:
    labels = torch.arange(64) % 4
    images = labels.float()[:, None, None, None].expand(64, 1, 10, 10).contiguous()
    mixed, target = mix(images, labels, 4, settings(cutmix=1.0))
    share = torch.nn.functional.one_hot(mixed[:, 0].long(), 4).float().mean(dim=(1, 2))
    assert torch.allclose(share, target, atol=1e-5)
    assert (target.amax(dim=1) < 1).sum() > 20


def test_mixing_is_off_by_default_and_draws_one_kind_where_both_are_asked_for() -> None:
    images, labels = noise(8), torch.arange(8) % 4
    assert mix(images, labels, 4, settings())[1] is labels
    both = settings(mixup=0.4, cutmix=1.0)
    kinds = set()
    for _ in range(20):
        mixed, _ = mix(torch.where(images > 127, 255.0, 0.0), labels, 4, both)
        kinds.add(bool(((mixed > 0) & (mixed < 255)).any()))
    assert kinds == {True, False}


EVERYTHING = settings(
    shift=2,
    flip=True,
    rotate=30.0,
    crop_scale=0.5,
    brightness=0.2,
    contrast=0.2,
    cutout=3,
    erase=0.5,
    mixup=0.4,
    cutmix=1.0,
)


@pytest.mark.parametrize("step", [0, 1, 2, 3])  # in which mixup and cutmix both come
def test_an_image_meets_the_same_changes_in_any_share_of_its_batch(step: int) -> None:
    images, labels = noise(21), torch.arange(21) % 4

    def changed(share: slice) -> tuple[torch.Tensor, torch.Tensor]:
        seed_step(1, step, images.device)
        draws = Draws(21, share, images.device)
        seen = augmentation.augment(images[share], EVERYTHING, draws)
        return augmentation.mix(seen, labels[share], 4, EVERYTHING, draws)

    whole = changed(slice(0, 21))
    shares = [changed(share) for share in (slice(0, 10), slice(10, 21), slice(21, 21))]
    for together, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert torch.equal(together, torch.cat(parts))


def test_a_step_draws_by_the_seed_its_number_and_the_process() -> None:
    drawn = []
    for seed, step, rank in [(1, 1, 0), (1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1), (1, 11, 0)]:
        seed_step(seed, step, torch.device("cpu"), rank)
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1]
    assert len({*map(tuple, drawn)}) == 5
