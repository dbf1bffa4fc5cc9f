from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from imageclf.training.draws import Draws, seed_step
from imageclf.training.policies import BINS, apply_policy

COUNT = 400
TRANSFORMS = {"randaugment": v2.RandAugment, "trivialaugment": v2.TrivialAugmentWide}


def photographs(channels: int, count: int = COUNT) -> torch.Tensor:
    """Smooth images with some noise: uint8, N x C x 16 x 20."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 4, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")
    noise = torch.rand(smooth.shape, generator=generator)
    return (smooth * 230 + noise * 25).to(torch.uint8)


def changed(images: torch.Tensor, policy: str, share: slice = slice(0, COUNT)) -> torch.Tensor:
    cpu = torch.device("cpu")
    seed_step(1, 1, cpu)
    return apply_policy(images[share], policy, Draws(len(images), share, cpu))


def drawn(policy: str) -> Iterator[tuple[list[int], list[int], list[bool]]]:
    """For each operation in turn: which one, its bin, and whether it is negative, by image."""
    seed_step(1, 1, torch.device("cpu"))
    operations = len(TRANSFORMS[policy]()._AUGMENTATION_SPACE)
    for _ in range(2 if policy == "randaugment" else 1):
        kinds = torch.randint(0, operations, (COUNT,)).tolist()
        rand = policy == "randaugment"
        bins = [9] * COUNT if rand else torch.randint(0, BINS, (COUNT,)).tolist()
        yield kinds, bins, [bool(value) for value in torch.randint(0, 2, (COUNT,)).tolist()]


@pytest.mark.parametrize("policy", TRANSFORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_that_of_torchvision_on_the_image_alone(
    monkeypatch: pytest.MonkeyPatch, policy: str, channels: int
) -> None:
    images = photographs(channels)
    ours, rounds = changed(images, policy), list(drawn(policy))
    theirs = TRANSFORMS[policy]()
    space = list(theirs._AUGMENTATION_SPACE.items())
    choices: list[int] = []
    answers: list[torch.Tensor] = []
    monkeypatch.setattr(theirs, "_get_random_item", lambda _: space[choices.pop(0)])
    monkeypatch.setattr(torch, "rand", lambda *_: answers.pop(0))
    monkeypatch.setattr(torch, "randint", lambda *_: answers.pop(0))
    for number, image in enumerate(images):
        choices[:] = [kinds[number] for kinds, _, _ in rounds]
        answers[:] = [answer for each in rounds for answer in asked(theirs, each, number)]
        assert torch.equal(ours[number], theirs(image)), number
        assert choices == answers == []


def asked(
    theirs: Any, drawn_in_round: tuple[list[int], list[int], list[bool]], number: int
) -> Iterator[torch.Tensor]:
    """What torchvision draws for an image: the bin if it needs one, and the sign."""
    operation, level, negative = (each[number] for each in drawn_in_round)
    magnitudes, signed = list(theirs._AUGMENTATION_SPACE.values())[operation]
    if magnitudes(BINS, 16, 20) is None:
        return
    if isinstance(theirs, v2.TrivialAugmentWide):
        yield torch.tensor(level)
    if signed:
        yield torch.tensor(0.0 if negative else 1.0)


@pytest.mark.parametrize("policy", TRANSFORMS)
def test_images_draw_each_for_itself_and_alike_in_any_share(policy: str) -> None:
    alike = photographs(3, 1).expand(COUNT, -1, -1, -1)
    seen = changed(alike, policy)
    assert len({bytes(image.numpy().tobytes()) for image in seen}) > COUNT / 10
    shares = [changed(alike, policy, share) for share in (slice(0, 150), slice(150, COUNT))]
    assert torch.equal(torch.cat(shares), seen)
