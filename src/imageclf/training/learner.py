"""One optimisation step of a network, and its loss and accuracy on a split.

Nothing here waits for the device within a batch.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from imageclf.network.classifier import Classifier, to_pixels
from imageclf.params import Params
from imageclf.training.augment import Draws, augment, mix, seed_step
from imageclf.training.batch_sharing import Group
from imageclf.training.losses import Divisor, LossFunction, build_divisor, build_loss
from imageclf.training.optimization import build_optimizer, weight_average


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
        train, augmentation, seed = self._params.train, self._params.augment, self._params.seed
        seed_step(seed, number, self._device)
        inputs, target = images, labels
        if not images.is_floating_point():  # not features
            draws = Draws(size, self.share(size), self._device)
            pixels = augment(to_pixels(images), augmentation, draws)
            inputs, target = mix(pixels, labels, self._classes, augmentation, draws)
        if self._group:  # each process switches off other units in dropout
            seed_step(seed, number, self._device, self._group.rank)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=train.amp == "bf16"):
            output = self._forward(inputs)
        loss, right = self._loss(output.float(), target), _right(output, labels)
        divisor = self._divisor(target)
        if self._group:
            loss, divisor, right = self._group.backward(loss, divisor, right, self.network)
        else:
            loss.backward()
        if train.clip_gradient:
            nn.utils.clip_grad_norm_(self.network.parameters(), train.clip_gradient)
        self._optimizer.step(rate)
        if self._average:
            self._average.update_parameters(self.network)
        return _sums(loss.detach(), divisor, right)

    def share(self, size: int) -> slice:
        """This process's part of a batch of ``size`` images."""
        return self._group.share(size) if self._group else slice(size)

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
    return torch.stack([mean_loss.double() * weight, right.double(), weight])
