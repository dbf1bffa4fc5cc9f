"""The training loop: yields one typed result per epoch, and can be stopped and resumed anywhere.

Batches come from ``batches`` as uint8, on the device. No Python runs per image here, and nothing
waits for the device within a batch.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imageclf.data.batches import feeds
from imageclf.data.prepared import Split
from imageclf.files import UserError
from imageclf.network.classifier import Classifier, evaluation_batch
from imageclf.params import Params
from imageclf.training.augment import epoch_order
from imageclf.training.batch_sharing import Group
from imageclf.training.learner import Learner
from imageclf.training.optimization import learning_rate

STEPS_BETWEEN_REPORTS, SECONDS_BETWEEN_REPORTS = 50, 1.0  # whichever comes first


@dataclass(frozen=True)
class EpochResult:
    """What one pass over the train split brought.

    Losses and accuracies are means over images, losses weighted by class where ``class_weights``
    asks for it. Those of train are taken while it trains, batch by batch, with dropout and
    augmentation; those of val at the end of the epoch, without, and with the averaged weights where
    there are such.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Position:
    """Where within an epoch the training stands."""

    epoch: int
    images: int
    train_loss: float
    train_accuracy: float


class Training:
    """One training: a network, its data, and everything a checkpoint has to hold.

    Every process of a ``group`` has the whole of it, makes the same calls of it, and computes on
    its share of each batch; losses, accuracies and the state are those of all, on each the same.

    Attributes:
        classifier: trained in place, on the device it is on: all of one, on images, or the head of
            one alone, on the features that its frozen backbone gave of them.
        learner: takes the steps.
        history: the results of the epochs so far.
    """

    def __init__(
        self,
        params: Params,
        classifier: Classifier | nn.Sequential,
        train_split: Split,
        val_split: Split,
        classes: int,
        group: Group | None = None,
    ) -> None:
        self.params, self.classes, self._group = params, classes, group
        self.history: list[EpochResult] = []
        device = next(classifier.parameters()).device
        self._train, self._val = feeds((train_split, val_split), device)
        self._val_batch = evaluation_batch(val_split.images.shape[1:])
        self.learner = Learner(params, classifier, self._train.labels, classes, group)
        self.classifier = self.learner.network
        self._best: dict[str, Tensor] | None = None
        self._steps_done = 0
        self._totals = torch.zeros(3, device=device, dtype=torch.float64)

    def run(self, on_step: Callable[[Position], None] = lambda _: None) -> Iterator[EpochResult]:
        """Train from where it stands to the end, one result per epoch.

        At the end the classifier has the averaged weights where there are such, and those of the
        epoch with the lowest val loss where ``train.patience`` asks to stop early.

        Raises:
            UserError: the loss stopped being finite.
        """
        while len(self.history) < self.params.train.epochs and not self._out_of_patience():
            started = time.perf_counter()
            images = self._train_epoch(on_step)
            yield self._end_of_epoch(images, time.perf_counter() - started)
        if self._best:
            self.classifier.load_state_dict(self._best)
        elif self.learner.measured is not self.classifier:
            self.classifier.load_state_dict(self.learner.measured.state_dict())

    def _train_epoch(self, on_step: Callable[[Position], None]) -> int:
        """The steps that are left of the current epoch; the number of images they see."""
        epoch, size = len(self.history), self.params.train.batch_size
        done = (self._steps_done - epoch * self.steps_per_epoch) * size
        order = epoch_order(self.train_images, self.params.seed, epoch + 1)
        order = order[done : self.images_per_epoch]
        self.classifier.train()
        reported = time.perf_counter()
        sizes = (min(size, len(order) - start) for start in range(0, len(order), size))
        for batch, (images, labels) in zip(
            sizes, self._train.batches(order, size, self.learner.share), strict=True
        ):
            step, rate = self._steps_done, self._rate(self._steps_done)
            self._totals += self.learner.step(images, labels, batch, step, rate)
            self._steps_done += 1
            passed = time.perf_counter() - reported
            if self._steps_done % STEPS_BETWEEN_REPORTS == 0 or passed > SECONDS_BETWEEN_REPORTS:
                reported = time.perf_counter()
                position = self.position
                _finite(position.train_loss, epoch + 1)
                on_step(position)
        return len(order)

    def _end_of_epoch(self, images: int, seconds: float) -> EpochResult:
        """Measure on val, with the averaged weights where there are such; keep the best."""
        epoch = len(self.history) + 1
        trained = self.position
        val_loss, val_accuracy = self.learner.measure(self._val_batches())
        self.history.append(
            EpochResult(
                epoch=epoch,
                learning_rate=self._rate(self._steps_done - 1),
                train_loss=_finite(trained.train_loss, epoch),
                train_accuracy=trained.train_accuracy,
                val_loss=_finite(val_loss, epoch),
                val_accuracy=val_accuracy,
                seconds=seconds,
                images_per_second=images / seconds,
            )
        )
        if self.params.train.patience and self.best_epoch == epoch:
            weights = self.learner.measured.state_dict()
            self._best = {name: value.clone() for name, value in weights.items()}
        self._totals.zero_()
        if self.params.model.freeze == "then" and epoch == self.params.train.head_epochs:
            self.learner.begin_phase(epoch)
        return self.history[-1]

    def _val_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The val split, of which the processes of a group take batches in turn."""
        batches = torch.arange(self.val_images).split(self._val_batch)
        if self._group:
            batches = batches[self._group.rank :: self._group.size]
        return self._val.batches(torch.cat([torch.arange(0), *batches]), self._val_batch)

    def _rate(self, step: int) -> float:
        train = self.params.train
        return learning_rate(train, step, train.epochs * self.steps_per_epoch)

    def _out_of_patience(self) -> bool:
        if not self.params.train.patience or not self.history:
            return False
        freed = self.params.train.head_epochs if self.params.model.freeze == "then" else 0
        return len(self.history) - max(self.best_epoch, freed) >= self.params.train.patience

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose weights the classifier has in the end."""
        if not self.params.train.patience:
            return len(self.history)
        return min(self.history, key=lambda result: result.val_loss).epoch

    @property
    def stopped_early(self) -> bool:
        """Whether ``train.patience`` ended it before all epochs."""
        return self._out_of_patience() and len(self.history) < self.params.train.epochs

    @property
    def is_fresh(self) -> bool:
        """Whether it stands before its first step."""
        return self._steps_done == 0

    @property
    def train_images(self) -> int:
        """Images of the train split."""
        return len(self._train.labels)

    @property
    def images_per_epoch(self) -> int:
        """Images of the train split that an epoch sees: one alone has no variance, and is left out.

        A last batch of one image would be of no use to batch norm.
        """
        size = self.params.train.batch_size
        return self.train_images - (self.train_images % size == 1 and size > 1)

    @property
    def val_images(self) -> int:
        """Images of the val split."""
        return len(self._val.labels)

    @property
    def majority(self) -> float:
        """The share of the commonest class in the train split."""
        return self._train.labels.bincount().max().item() / self.train_images

    @property
    def position(self) -> Position:
        """Where it stands."""
        steps = self._steps_done - len(self.history) * self.steps_per_epoch
        images = min(steps * self.params.train.batch_size, self.images_per_epoch)
        loss, right, weight = self._totals.tolist()
        return Position(len(self.history) + 1, images, loss / (weight or 1), right / max(images, 1))

    @property
    def steps_per_epoch(self) -> int:
        """Optimisation steps in an epoch; the last one may see fewer images."""
        return -(-self.images_per_epoch // self.params.train.batch_size)

    def trial_step(self) -> tuple[float, float]:
        """The loss of the first batch before and after one step on it; nothing of it stays."""
        before = copy.deepcopy(self.state())
        size = self.params.train.batch_size
        order = epoch_order(self.train_images, self.params.seed, epoch=1)[:size]
        images, labels = next(self._train.batches(order, size, self.learner.share))
        step, rate, losses = self._steps_done, self._rate(self._steps_done), []
        for _ in range(2):
            self.classifier.train()
            loss, _, divisor = self.learner.step(images, labels, len(order), step, rate).tolist()
            losses.append(loss / divisor)
        self.restore(before)
        return losses[0], losses[1]

    def state(self) -> dict[str, Any]:
        """All that a checkpoint holds, in tensors, numbers and strings."""
        return {
            **self.learner.state(),
            "best": self._best,
            "history": [asdict(result) for result in self.history],
            "steps_done": self._steps_done,
            "totals": self._totals,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``: what follows is bit for bit what would have followed there."""
        self.history = [EpochResult(**result) for result in state["history"]]
        self.learner.restore(state, len(self.history))
        self._best = state["best"]
        self._steps_done = state["steps_done"]
        self._totals.copy_(state["totals"])


def _finite(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise UserError(
            f"the loss became {loss} in epoch {epoch}: train.learning_rate is probably too high; "
            "try a tenth of it, or model.normalize: standard"
        )
    return loss
