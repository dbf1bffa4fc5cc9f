"""The training loop: yields one typed result per epoch.

Images stay packed in memory as uint8; an epoch gathers them once in its random order, and a batch
is a slice of that. No Python runs per image, and nothing waits for the device within a batch.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imageclf.classifier import EVALUATION_BATCH, Classifier
from imageclf.datasets import Split
from imageclf.files import UserError
from imageclf.params import Params, Train

LossFunction = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, LossFunction] = {
    "cross_entropy": nn.functional.cross_entropy,
    "nll": nn.functional.nll_loss,
}
STEPS_BETWEEN_REPORTS = 50


@dataclass(frozen=True)
class EpochResult:
    """What one pass over the train split brought.

    Losses and accuracies are means over images. Those of train are taken while it trains, batch by
    batch (dropout on); those of val at the end of the epoch (dropout off).
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
    """Where within an epoch the training stands, for a progress bar."""

    epoch: int
    images: int
    train_loss: float


def train(
    params: Params,
    classifier: Classifier,
    train_split: Split,
    val_split: Split,
    on_progress: Callable[[Position], None] = lambda _: None,
) -> Iterator[EpochResult]:
    """Train the classifier in place, on the device it is on, one result per epoch.

    The order of the images depends on the seed and the epoch alone.

    Raises:
        UserError: the loss stopped being finite.
    """
    device = classifier.scale.device
    images, labels = _on_device(train_split, device)
    val_images, val_labels = _on_device(val_split, device)
    loss_function = LOSSES[params.train.loss]
    optimizer = build_optimizer(params.train, classifier)
    for epoch in range(1, params.train.epochs + 1):
        started = time.perf_counter()
        order = epoch_order(len(train_split), params.seed, epoch).to(device)
        batches = _batches(images[order], labels[order], params.train.batch_size)
        train_loss, train_accuracy = _train_epoch(
            classifier, optimizer, loss_function, batches, epoch, on_progress
        )
        seconds = time.perf_counter() - started
        val_loss, val_accuracy = measure(classifier, val_images, val_labels, loss_function)
        yield EpochResult(
            epoch=epoch,
            learning_rate=optimizer.param_groups[0]["lr"],
            train_loss=_finite(train_loss, epoch),
            train_accuracy=train_accuracy,
            val_loss=_finite(val_loss, epoch),
            val_accuracy=val_accuracy,
            seconds=seconds,
            images_per_second=len(train_split) / seconds,
        )


def epoch_order(images: int, seed: int, epoch: int) -> Tensor:
    """A random permutation (int64) that depends on the seed and the epoch alone."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    return torch.randperm(images, generator=generator)


def build_optimizer(train: Train, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer by name, in torch's fused form where it has one."""
    parameters, rate = list(network.parameters()), train.learning_rate
    if train.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, fused=True)
    if train.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, fused=True)
    return torch.optim.RMSprop(parameters, lr=rate)


@torch.no_grad()
def measure(
    classifier: Classifier, images: Tensor, labels: Tensor, loss_function: LossFunction
) -> tuple[float, float]:
    """Mean loss and accuracy over all images, in eval mode: sums first, one division at the end."""
    classifier.eval()
    totals = torch.zeros(2, device=images.device, dtype=torch.float64)
    for batch, target in _batches(images, labels, EVALUATION_BATCH):
        output = classifier(batch)
        totals += _sums(output, target, loss_function(output, target))
    loss, accuracy = (totals / len(labels)).tolist()
    return loss, accuracy


def _train_epoch(
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    loss_function: LossFunction,
    batches: Iterator[tuple[Tensor, Tensor]],
    epoch: int,
    on_progress: Callable[[Position], None],
) -> tuple[float, float]:
    """One optimisation step per batch; mean loss and accuracy over the epoch."""
    classifier.train()
    totals = torch.zeros(2, device=classifier.scale.device, dtype=torch.float64)
    images = 0
    for step, (batch, target) in enumerate(batches, 1):
        optimizer.zero_grad()
        output = classifier(batch)
        loss = loss_function(output, target)
        loss.backward()
        optimizer.step()
        totals += _sums(output.detach(), target, loss.detach())
        images += len(target)
        if step % STEPS_BETWEEN_REPORTS == 0:
            on_progress(Position(epoch, images, _finite(totals[0].item() / images, epoch)))
    loss_mean, accuracy = (totals / images).tolist()
    return loss_mean, accuracy


def _sums(output: Tensor, target: Tensor, mean_loss: Tensor) -> Tensor:
    """Summed loss and number of right answers of a batch, without waiting for the device."""
    right = (output.argmax(dim=1) == target).sum()
    return torch.stack([mean_loss.double() * len(target), right.double()])


def _batches(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Slices of images and labels, in order; the last one may be shorter."""
    return zip(images.split(size), labels.split(size), strict=True)


def _on_device(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and labels of a split as tensors, in memory once."""
    return torch.tensor(split.images, device=device), torch.tensor(split.labels, device=device)


def _finite(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise UserError(
            f"the loss became {loss} in epoch {epoch}: train.learning_rate is probably too high; "
            "try a tenth of it, or model.normalize: standard"
        )
    return loss
