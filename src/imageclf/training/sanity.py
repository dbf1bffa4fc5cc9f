"""Cheap checks that warn early if a training cannot work."""

import math
import time

from imageclf.training.loop import EpochResult, Position, Training

# The factor by which the first loss may differ from ln(classes) without a warning.
NEAR = 1.5
FIRST_LOOK = 30.0  # seconds
Z = 2.5758293035489  # of the normal distribution: 99 %, two-sided


def check(training: Training) -> list[str]:
    """Check one batch before training starts; the state of the training stays.

    Returns:
        One warning per failed check: the first loss should be near ln(classes), the loss of
        guessing evenly, and one step on a batch should lower its loss.
    """
    train = training.params.train
    before, after = training.trial_step()
    warnings = []
    guessing = math.log(training.classes)
    if train.loss != "mse" and not guessing / NEAR < before < guessing * NEAR:
        warnings.append(
            f"the loss before training is {before:.2f}, guessing evenly gives {guessing:.2f}: "
            "look at model.init and model.normalize"
        )
    if not after < before:
        warnings.append(
            f"one step on one batch takes its loss from {before:.4f} to {after:.4f} instead of "
            "lowering it: train.learning_rate is probably too high"
        )
    return warnings


class ChanceWatch:
    """Warns once, early in a training, that the network is no better than guessing.

    It checks after ``FIRST_LOOK`` seconds and at the end of each epoch, until the network is better
    than always guessing the most common class, or the warning is given.
    """

    def __init__(self, training: Training) -> None:
        self._majority = training.majority
        self._images = {"train": training.train_images, "val": training.val_images}
        # Val measures an average of the weights, which may lag by several short epochs.
        self._split = "train" if training.params.train.ema else "val"
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
        accuracies = {"train": result.train_accuracy, "val": result.val_accuracy}
        return self._warning(accuracies[self._split], self._images[self._split], self._split)

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
