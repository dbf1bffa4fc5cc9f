"""The first images of a training, before and after augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from imageclf.data.prepared import Split
from imageclf.params import Params
from imageclf.training.augment import augmented, epoch_order, mix
from imageclf.training.draws import Draws, seed_step

SEEN = 16  # images in the pictures of a training
LEAST_SHARE = 0.005


@dataclass(frozen=True)
class Preview:
    """Images, in the order in which the training sees them.

    Attributes:
        originals: uint8, N x H x W x C.
        seen: the same after augmentation.
        names: the class of each original.
        captions: the classes that an image was mixed from, one per line; empty for a single class.
    """

    originals: NDArray[np.uint8]
    seen: NDArray[np.uint8]
    names: list[str]
    captions: list[str]


def preview(params: Params, train: Split, class_names: Sequence[str], count: int) -> Preview:
    """The first ``count`` train images of the first epoch.

    Up to the size of a batch they are those of the first step on a CPU. The state of torch's
    generator stays.
    """
    first = epoch_order(len(train), params.seed, epoch=1)[:count].numpy()
    images, labels = train.images[first], train.labels[first]
    target = torch.from_numpy(labels)
    batch = max(min(params.train.batch_size, len(train)), len(first))
    draws = Draws(batch, slice(0, len(first)), target.device)
    with torch.random.fork_rng(devices=[]):
        seed_step(params.seed, 0, target.device)
        pixels = augmented(torch.from_numpy(images), params.augment, draws)
        pixels, target = mix(pixels, target, len(class_names), params.augment, draws)
    shares = target if target.ndim == 2 else functional.one_hot(target, len(class_names))
    return Preview(
        originals=images,
        seen=pixels.permute(0, 2, 3, 1).round().to(torch.uint8).numpy(),
        names=[class_names[label] for label in labels],
        captions=[_mixture(share, class_names) for share in shares.tolist()],
    )


def _mixture(share: Sequence[float], class_names: Sequence[str]) -> str:
    parts = sorted(zip(share, class_names, strict=True), reverse=True)
    lines = [f"{part:.0%} {name}" for part, name in parts if part >= LEAST_SHARE]
    return "\n".join(lines) if len(lines) > 1 else ""
