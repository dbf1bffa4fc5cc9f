"""One optimisation step of a network, and its loss and accuracy on a split.

Nothing here waits for the device within a batch.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from imageclf.network.classifier import Classifier
from imageclf.params import Params
from imageclf.training.augment import augmented, mix
from imageclf.training.batch_sharing import Group, part
from imageclf.training.draws import Draws, seed_step
from imageclf.training.losses import Divisor, LossFunction, build_divisor, build_loss
from imageclf.training.optimization import build_optimizer, weight_average


class _Batch(NamedTuple):
    """The arguments of ``Learner.step``."""

    images: Tensor
    labels: Tensor
    size: int
    number: int


class Learner:
    """A network with its loss, its optimizer and the average of its weights.

    ``network`` is trained in place, on its device: a classifier on images, or a head on features.
    ``labels`` (int64) are those of the train split; a ``group`` of processes shares each batch.
    """

    def __init__(
        self,
        params: Params,
        network: Classifier | nn.Sequential,
        labels: Tensor,
        classes: int,
        group: Group | None,
    ) -> None:
        self._params, self._classes, self._group = params, classes, group
        self.network = network.to(memory_format=torch.channels_last)
        self._device = next(network.parameters()).device
        self._loss = build_loss(params.train, labels, classes)
        self._divisor = build_divisor(params.train, labels, classes)
        if group:
            group.share_batch_norm(network)
        self.begin_phase(0)
        self._average = weight_average(network, params.train.ema)
        self._forward = getattr(network, "from_pixels", network)
        if params.train.compile:
            self._forward = torch.compile(self._forward)

    @property
    def measured(self) -> nn.Module:
        """The network that val measures: with the averaged weights if there are any."""
        return self._average.module if self._average else self.network

    def begin_phase(self, epochs: int) -> None:
        """Freeze or release the backbone after ``epochs`` epochs; make a new optimizer."""
        model, backbone = self._params.model, None
        if isinstance(self.network, Classifier):
            at_first = epochs < self._params.train.head_epochs
            frozen = model.freeze == "backbone" or (model.freeze == "then" and at_first)
            self.network.network.freeze(frozen)
            backbone = self.network.network.backbone if model.pretrained else None
        self._optimizer = build_optimizer(self._params.train, self.network, backbone)

    def step(self, images: Tensor, labels: Tensor, size: int, number: int, rate: float) -> Tensor:
        """One optimisation step.

        Args:
            images: uint8, or features (float32): this process's share of a batch.
            labels: int64, of ``images``.
            size: images in the whole batch.
            number: of the step, from 0.
            rate: the learning rate.

        Returns:
            Of the whole batch, float64: the summed loss, the number of right answers, and the
            divisor that makes the first a mean.
        """
        parts = self._parts(size, len(images))
        summed = self._group is not None or len(parts) > 1
        batch = _Batch(images, labels, size, number)
        figures = self._backward(batch, 0, parts[0], summed)
        for index, each in enumerate(parts[1:], 1):
            figures += self._backward(batch, index, each, summed)
        if summed:
            figures = self._mean_gradients(figures)
        if self._params.train.clip_gradient:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._params.train.clip_gradient)
        self._optimizer.step(rate)
        if self._average:
            self._average.update_parameters(self.network)
        return figures

    def _backward(self, batch: _Batch, index: int, its: slice, summed: bool) -> Tensor:
        """Add the gradients of part ``its``, number ``index``: of its mean loss, or the summed.

        The parts see the changes to images that the whole batch would see, and other dropout
        and drop path.
        """
        train, augmentation, seed = self._params.train, self._params.augment, self._params.seed
        inputs, labels = batch.images[its], batch.labels[its]
        target = labels
        seed_step(seed, batch.number, self._device)
        if not inputs.is_floating_point():  # not features
            start = self.share(batch.size).start
            share = slice(start + its.start, start + its.stop)
            draws = Draws(batch.size, share, self._device)
            pixels = augmented(inputs, augmentation, draws)
            inputs, target = mix(pixels, labels, self._classes, augmentation, draws)
        if self._group or index:
            rank = self._group.rank if self._group else 0
            seed_step(seed, batch.number, self._device, rank * train.accumulate + index)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=train.amp == "bf16"):
            output = self._forward(inputs)
        loss, divisor = self._loss(output.float(), target), self._divisor(target)
        (loss * divisor if summed else loss).backward()
        return _sums(loss.detach(), divisor, _right(output, labels))

    def _mean_gradients(self, figures: Tensor) -> Tensor:
        """Make summed gradients those of the mean over the whole batch; returns its figures."""
        gradients = [each.grad for each in self.network.parameters() if each.grad is not None]
        if self._group:
            figures = self._group.add_gradients(gradients, figures.float()).double()
        torch._foreach_div_(gradients, figures[2].float())
        return figures

    def _parts(self, size: int, images: int) -> list[slice]:
        """The parts in which this process computes its share of a batch of ``size`` images.

        Each process has the same number of them, and each part three images at least.
        """
        processes = self._group.size if self._group else 1
        most = -(-size // 2) // (2 * processes)
        count = max(1, min(self._params.train.accumulate, most))
        return [part(images, number, count) for number in range(count)]

    def share(self, size: int) -> slice:
        """This process's part of a batch of ``size`` images."""
        return self._group.share(size) if self._group else slice(0, size)

    def measure(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """Mean loss and accuracy of ``measured``; each process of a group gives its own batches."""
        return measure(self.measured, batches, self._loss, self._divisor, self._group)

    def state(self) -> dict[str, Any]:
        """Everything that a step changes, in tensors."""
        return {
            "classifier": self.network.state_dict(),
            "optimizer": self._optimizer.state(),
            "average": self._average.state_dict() if self._average else None,
        }

    def restore(self, state: dict[str, Any], epochs: int) -> None:
        """Continue from ``state``, after ``epochs`` epochs."""
        self.network.load_state_dict(state["classifier"])
        self.begin_phase(epochs)
        self._optimizer.restore(state["optimizer"])
        if self._average:
            self._average.load_state_dict(state["average"])


@torch.no_grad()
def measure(
    classifier: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss_function: LossFunction,
    divisor: Divisor,
    group: Group | None = None,
) -> tuple[float, float]:
    """Mean loss and accuracy over all images, in eval mode: sums first, one division at the end.

    Each process of a ``group`` gives its own batches; their sums are added.
    """
    classifier.eval()
    totals = torch.zeros(4, device=next(classifier.parameters()).device, dtype=torch.float64)
    for images, labels in batches:
        output = classifier(images)
        loss, right = loss_function(output, labels), _right(output, labels)
        totals[:3] += _sums(loss, divisor(labels), right)
        totals[3] += len(labels)
    if group:
        group.add(totals)
    summed, rights, weight, count = totals.tolist()
    return summed / weight, rights / count


def _right(output: Tensor, labels: Tensor) -> Tensor:
    return (output.argmax(dim=1) == labels).sum()


def _sums(mean_loss: Tensor, divisor: Tensor, right: Tensor) -> Tensor:
    """Summed loss, right answers and divisor of a batch, without waiting for the device."""
    weight = divisor.double()
    summed = torch.where(weight > 0, mean_loss.double() * weight, 0)  # a mean of nothing is NaN
    return torch.stack([summed, right.double(), weight])
