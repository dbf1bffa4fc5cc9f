"""Cheap checks that warn early if a training cannot work."""

import math
import time

import torch
from torch import Tensor

from imageclf.params import Params
from imageclf.training.loop import EpochResult, Position, Training

DRAWS = 4000
QUANTILE = 0.999  # one sound network in a thousand is warned of for nothing
MOST_DRAWN = 10**7  # logits, for data with very many classes
FIRST_LOOK = 30.0  # seconds
Z = 2.5758293035489  # of the normal distribution: 99 %, two-sided


def check(training: Training) -> list[str]:
    """Check one batch before training starts; the state of the training stays.

    Returns:
        One warning per failed check: the first loss should not be larger than sound initial
        weights give, and one step on a batch should lower its loss.
    """
    params, warnings = training.params, []
    before, after = training.trial_step()
    # A pretrained backbone has features of any size, and is no matter of model.init.
    if params.train.loss != "mse" and not params.model.pretrained:
        limit = first_loss_limit(params, training.class_shares)
        if not before <= limit:
            warnings.append(
                f"the loss before training is {before:.2f}, guessing evenly gives "
                f"{math.log(training.classes):.2f}, and sound initial weights {limit:.2f} at most: "
                "look at model.init and model.normalize"
            )
    if not after < before:
        warnings.append(
            f"one step on one batch takes its loss from {before:.4f} to {after:.4f} instead of "
            "lowering it: train.learning_rate is probably too high"
        )
    return warnings


def first_loss_limit(params: Params, shares: Tensor) -> float:
    """The largest cross-entropy before training that sound initial weights give.

    The features are positive, so a class's logit is nearly the same for all images. Over the
    networks that could be drawn it is normal, and its variance is that of the last layer's weights
    times its inputs times the second moment of an input. The limit is the ``QUANTILE`` of their
    losses.

    Args:
        params: those of the training.
        shares: of each class in the train split, float64.
    """
    # torch draws uniformly within 1/sqrt(inputs). The largest by name is the one for ReLU:
    # https://arxiv.org/abs/1502.01852, equation 10.
    gain = 1 / 3 if params.model.init == "default" else 2.0
    spread = math.sqrt(gain * _second_moment(params) / (1 - params.model.dropout))
    count = max(100, min(DRAWS, MOST_DRAWN // len(shares)))
    generator = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(count, len(shares), generator=generator, dtype=torch.float64)
    losses = logits.logsumexp(dim=1) - logits @ shares.cpu()
    return losses.quantile(QUANTILE).item()


def _second_moment(params: Params) -> float:
    """Of a feature whose normalised inputs are standard normal: at most 1 after an activation.

    Those of ``cnn`` are each the largest of n values, whose second moment is below 2 ln(n).
    """
    if params.model.name != "cnn":
        return 1.0
    side = params.transform.image_size // 2 ** (params.model.stages - 1)
    return max(1.0, 2 * math.log(side**2))


class ChanceWatch:
    """Warns once, early in a training, that the network is no better than guessing.

    It checks after ``FIRST_LOOK`` seconds and at the end of each epoch, until the network is better
    than always guessing the most common class, or the warning is given.
    """

    def __init__(self, training: Training) -> None:
        self._majority = training.majority
        self._val_images = training.val_images
        self._look_at = time.monotonic() + FIRST_LOOK
        self._watching = True

    def during(self, position: Position) -> str | None:
        """The warning, if there is cause, ``FIRST_LOOK`` seconds into the training."""
        if time.monotonic() < self._look_at:
            return None
        self._look_at = math.inf
        return self._warning(position.train_accuracy, position.images, "train")

    def after(self, result: EpochResult) -> str | None:
        """The warning, if there is cause, at the end of an epoch."""
        return self._warning(result.val_accuracy, self._val_images, "val")

    def _warning(self, accuracy: float, images: int, split: str) -> str | None:
        spread = Z * math.sqrt(self._majority * (1 - self._majority) / images)
        learns = accuracy > self._majority + spread
        silent, self._watching = learns or not self._watching, False
        if silent:
            return None
        return (
            f"the network is right for {accuracy:.1%} of {images:,} {split} images; always "
            f"guessing the commonest class is right for {self._majority:.1%}: it is not learning "
            "yet. If this stays, look at the learning rate, the network and the labels"
        )
