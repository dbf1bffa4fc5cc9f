"""RandAugment and TrivialAugmentWide on whole batches, drawn for each image.

The operations and their magnitudes are torchvision's, whose own transforms draw once for a batch.
Images that drew the same operation and magnitude are changed together.

RandAugment (https://arxiv.org/abs/1909.13719): two operations of magnitude 9 of 31 in turn.
TrivialAugmentWide (https://arxiv.org/abs/2103.10158): one, of a magnitude drawn from 31.
"""

from collections import defaultdict
from functools import cache
from typing import Any

import torch
from torch import Tensor

from imageclf.training.draws import Draws

BINS, RAND_MAGNITUDE, RAND_OPERATIONS = 31, 9, 2  # the defaults of torchvision


def apply_policy(images: Tensor, policy: str, draws: Draws) -> Tensor:
    """Change each image (uint8, N x C x H x W) by operations that it draws itself.

    Args:
        images: of one or three channels; operations on colour leave grey ones alone.
        policy: ``randaugment`` or ``trivialaugment``.
        draws: for these images, on the CPU: the operations are chosen there.
    """
    rand = policy == "randaugment"
    for _ in range(RAND_OPERATIONS if rand else 1):
        operations = draws.integers(len(_operations(policy))).tolist()
        bins = [RAND_MAGNITUDE] * len(images) if rand else draws.integers(BINS).tolist()
        negative = draws.integers(2).tolist()
        alike = defaultdict(list)
        for number, drawn in enumerate(zip(operations, bins, negative, strict=True)):
            alike[drawn].append(number)
        changed = torch.empty_like(images)
        for (operation, level, is_negative), numbers in alike.items():
            index = torch.tensor(numbers, device=images.device)
            changed[index] = _change(images[index], policy, operation, level, bool(is_negative))
        images = changed
    return images


def _change(images: Tensor, policy: str, operation: int, level: int, negative: bool) -> Tensor:
    transform, name = _transform(policy), _operations(policy)[operation]
    magnitudes, signed = transform._AUGMENTATION_SPACE[name]
    strengths = magnitudes(BINS, *images.shape[2:])
    strength = 0.0 if strengths is None else float(strengths[level])
    changed: Tensor = transform._apply_image_or_video_transform(
        images,
        name,
        -strength if signed and negative else strength,
        interpolation=transform.interpolation,
        fill=transform._fill,
    )
    return changed


def _operations(policy: str) -> list[str]:
    return list(_transform(policy)._AUGMENTATION_SPACE)


@cache
def _transform(policy: str) -> Any:
    from torchvision.transforms import v2

    return v2.RandAugment() if policy == "randaugment" else v2.TrivialAugmentWide()
