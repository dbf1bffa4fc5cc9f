"""The training loop: yields one result per epoch, and can be stopped and resumed anywhere.

No Python runs per image here, and nothing waits for the device within a batch.
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
    """The figures of one pass over the train split.

    Losses and accuracies are means over images; ``class_weights`` weights the losses. Those of
    train are taken batch by batch during training, with dropout and augmentation. Those of val are
    taken at the end of the epoch, without both, and with the averaged weights if there are any.
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
    """How far a training is: the epoch, and what it has seen of it."""

    epoch: int
    images: int
    train_loss: float
    train_accuracy: float


class Training:
    """One training: a network, its data, and everything that a checkpoint holds.

    Every process of a ``group`` makes the same calls, and computes on its share of each batch.
    Losses, accuracies and the state are those of the whole group, the same in each process.

    Attributes:
        classifier: trained in place, on its device: a whole classifier on images, or only its head
            on features.
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
        """Train from the current position to the end, one result per epoch.

        At the end the classifier has the averaged weights if there are any, and those of the epoch
        with the lowest val loss if ``train.patience`` is set.

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
        """Take the remaining steps of the current epoch; return the number of images in them."""
        epoch = len(self.history)
        done = (self._steps_done - epoch * self.steps_per_epoch) * self.params.train.batch_size
        self.classifier.train()
        reported = time.perf_counter()
        for batch in self.batches(epoch + 1, done):
            step, rate = self._steps_done, self._rate(self._steps_done)
            self._totals += self.learner.step(*batch, step, rate)
            self._steps_done += 1
            passed = time.perf_counter() - reported
            if self._steps_done % STEPS_BETWEEN_REPORTS == 0 or passed > SECONDS_BETWEEN_REPORTS:
                reported = time.perf_counter()
                position = self.position
                _finite(position.train_loss, epoch + 1)
                on_step(position)
        return self.images_per_epoch - done

    def batches(self, epoch: int, done: int = 0) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Images, labels and size of each batch of an epoch (from 1), but for ``done`` images.

        In a group of processes the images are this one's share, the size is that of all.
        """
        size = self.params.train.batch_size
        order = epoch_order(self.train_images, self.params.seed, epoch)
        order = order[done : self.images_per_epoch]
        shares = self._train.batches(order, size, self.learner.share)
        for start, (images, labels) in zip(range(0, len(order), size), shares, strict=True):
            yield images, labels, min(size, len(order) - start)

    def _end_of_epoch(self, images: int, seconds: float) -> EpochResult:
        """Measure on val; keep the weights if they are the best so far."""
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
        """The batches of the val split; the processes of a group take them in turn."""
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
        """The epoch, from 1, whose weights the classifier has at the end."""
        if not self.params.train.patience:
            return len(self.history)
        return min(self.history, key=lambda result: result.val_loss).epoch

    @property
    def stopped_early(self) -> bool:
        """Whether ``train.patience`` ended the training before the last epoch."""
        return self._out_of_patience() and len(self.history) < self.params.train.epochs

    @property
    def is_fresh(self) -> bool:
        """Whether no step has been taken."""
        return self._steps_done == 0

    @property
    def train_images(self) -> int:
        """Images of the train split."""
        return len(self._train.labels)

    @property
    def images_per_epoch(self) -> int:
        """Images in an epoch; a last batch of one image is left out, as it has no variance."""
        size = self.params.train.batch_size
        return self.train_images - (self.train_images % size == 1 and size > 1)

    @property
    def val_images(self) -> int:
        """Images of the val split."""
        return len(self._val.labels)

    @property
    def class_shares(self) -> Tensor:
        """The share of each class in the train split: float64, one per class."""
        counts = self._train.labels.bincount(minlength=self.classes)
        return counts.double() / self.train_images

    @property
    def majority(self) -> float:
        """The share of the most common class in the train split."""
        return self.class_shares.max().item()

    @property
    def position(self) -> Position:
        """The current position."""
        steps = self._steps_done - len(self.history) * self.steps_per_epoch
        images = min(steps * self.params.train.batch_size, self.images_per_epoch)
        loss, right, weight = self._totals.tolist()
        return Position(len(self.history) + 1, images, loss / (weight or 1), right / max(images, 1))

    @property
    def steps_per_epoch(self) -> int:
        """Optimisation steps in an epoch; the last one may have fewer images."""
        return -(-self.images_per_epoch // self.params.train.batch_size)

    def trial_step(self) -> tuple[float, float]:
        """The loss of the first batch before and after one step on it; the state is restored."""
        before = copy.deepcopy(self.state())
        rate, first = self._rate(self._steps_done), next(self.batches(epoch=1))
        losses = [self.step_at(rate, first, self._steps_done) for _ in range(2)]
        self.restore(before)
        return losses[0], losses[1]

    def step_at(self, rate: float, batch: tuple[Tensor, Tensor, int], number: int) -> float:
        """Take step ``number`` at another learning rate; returns the mean loss before it."""
        self.classifier.train()
        loss, _, divisor = self.learner.step(*batch, number, rate)
        return float(loss / divisor)

    def state(self) -> dict[str, Any]:
        """The content of a checkpoint: tensors, numbers and strings."""
        return {
            **self.learner.state(),
            "best": self._best,
            "history": [asdict(result) for result in self.history],
            "steps_done": self._steps_done,
            "totals": self._totals,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state``: the results are the same to the bit as without a stop."""
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
