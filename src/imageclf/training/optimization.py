"""Optimizers and learning-rate schedules by name."""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

from imageclf.network.layers import layers_in_order
from imageclf.params import Train

ONE_CYCLE_RISE = 0.3
# The defaults of torch.optim.
BETA1, BETA2, ALPHA, EPSILON = 0.9, 0.999, 0.99, 1e-8


class Step(NamedTuple):
    """The input of a rule, which changes weights and moments in place.

    Attributes:
        weights: float32, of any shape.
        gradients: one per weight, of its shape.
        moments: for each running average of the rule, one tensor per weight.
        number: of the step, from 1; float32, without dimensions.
        rate: the learning rate.
        decay: the weight decay.
    """

    weights: list[Tensor]
    gradients: list[Tensor]
    moments: list[list[Tensor]]
    number: Tensor
    rate: float
    decay: float


@dataclass(frozen=True)
class Group:
    """Weights with the same weight decay and the same factor on the learning rate."""

    weights: list[Tensor]
    decay: float
    factor: float


class Optimizer:
    """Applies one rule to all weights that learn.

    It calls torch's kernels directly. The classes of torch.optim take the same steps, to the bit if
    the kernel is fused. But in a small network they double the time of a step, and they import
    torch's compiler (over a second).
    """

    def __init__(self, rule: Callable[[Step], None], moments: int, groups: list[Group]) -> None:
        learned = [weight for group in groups for weight in group.weights]
        self._rule, self._groups = rule, groups
        self._moments = {w: [torch.zeros_like(w) for _ in range(moments)] for w in learned}
        self._count = torch.zeros((), device=learned[0].device)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply the gradients and drop them; a weight without a gradient is not changed."""
        self._count += 1
        for group in self._groups:
            moved = [(w, w.grad, *self._moments[w]) for w in group.weights if w.grad is not None]
            if not moved:
                continue
            weights, gradients, *moments = map(list, zip(*moved, strict=True))
            rate_here = rate * group.factor
            self._rule(Step(weights, gradients, moments, self._count, rate_here, group.decay))
            for weight in weights:
                weight.grad = None

    def state(self) -> dict[str, Any]:
        """Everything that a step changes, in tensors."""
        return {"count": self._count, "moments": list(self._moments.values())}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self._count.copy_(state["count"])
        for moments, saved in zip(self._moments.values(), state["moments"], strict=True):
            for moment, value in zip(moments, saved, strict=True):
                moment.copy_(value)


def build_optimizer(
    train: Train, network: nn.Module, backbone: nn.Module | None = None
) -> Optimizer:
    """The optimizer ``train.optimizer`` for the weights of a network that require a gradient.

    A pretrained ``backbone`` in it learns at ``train.backbone_rate`` and ``train.layer_decay``.
    """
    groups = _groups(train, network, backbone)
    if train.optimizer == "sgd":
        rule = partial(_sgd, momentum=train.momentum, nesterov=train.nesterov)
        return Optimizer(rule, bool(train.momentum), groups)
    if train.optimizer == "rmsprop":
        rule = partial(_rmsprop, momentum=train.momentum)
        return Optimizer(rule, 1 + bool(train.momentum), groups)
    kernel = torch._fused_adamw_ if train.optimizer == "adamw" else torch._fused_adam_
    return Optimizer(partial(_adam, kernel), 2, groups)


def _groups(train: Train, network: nn.Module, backbone: nn.Module | None) -> list[Group]:
    """Groups of weights; the weight decay is for weights of two or more dimensions.

    Biases and the scales and shifts of normalisation layers have none: it would cost capacity.
    """
    factors = backbone_factors(train, backbone) if backbone else {}
    alike: dict[tuple[float, float], list[Tensor]] = defaultdict(list)
    for weight in network.parameters():
        if weight.requires_grad:
            decay = train.weight_decay if weight.ndim > 1 else 0.0
            alike[decay, factors.get(weight, 1.0)].append(weight)
    return [Group(weights, decay, factor) for (decay, factor), weights in alike.items()]


def backbone_factors(train: Train, backbone: nn.Module) -> dict[Tensor, float]:
    """The factor on the learning rate of each weight of a pretrained backbone.

    Its last layer is one step below the head, and each layer one step below the next
    (https://arxiv.org/abs/1801.06146, in BEiT's form, https://arxiv.org/abs/2106.08254).
    """
    layers = layers_in_order(backbone)
    return {
        weight: train.backbone_rate * train.layer_decay ** (len(layers) - number)
        for number, layer in enumerate(layers)
        for weight in layer
    }


def _sgd(step: Step, momentum: float, nesterov: bool) -> None:
    """https://proceedings.mlr.press/v28/sutskever13.html, in torch's form."""
    torch._fused_sgd_(
        step.weights,
        step.gradients,
        step.moments[0] if step.moments else [],
        weight_decay=step.decay,
        momentum=momentum,
        lr=step.rate,
        dampening=0.0,
        nesterov=nesterov,
        maximize=False,
        is_first_step=False,
    )


def _adam(kernel: Callable[..., None], step: Step) -> None:
    """https://arxiv.org/abs/1412.6980; AdamW's kernel: https://arxiv.org/abs/1711.05101."""
    kernel(
        step.weights,
        step.gradients,
        *step.moments,
        [],
        [step.number] * len(step.weights),
        lr=step.rate,
        beta1=BETA1,
        beta2=BETA2,
        weight_decay=step.decay,
        eps=EPSILON,
        amsgrad=False,
        maximize=False,
    )


def _rmsprop(step: Step, momentum: float) -> None:
    """Hinton's lecture 6e, https://www.cs.toronto.edu/~tijmen/csc321/."""
    squares, *velocity = step.moments
    gradients = torch._foreach_add(step.gradients, step.weights, alpha=step.decay)
    torch._foreach_mul_(squares, ALPHA)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - ALPHA)
    spread = torch._foreach_sqrt(squares)
    torch._foreach_add_(spread, EPSILON)
    if velocity:
        torch._foreach_mul_(velocity[0], momentum)
        torch._foreach_addcdiv_(velocity[0], gradients, spread)
        torch._foreach_add_(step.weights, velocity[0], alpha=-step.rate)
    else:
        torch._foreach_addcdiv_(step.weights, gradients, spread, value=-step.rate)


def weight_average(network: nn.Module, decay: float) -> AveragedModel | None:
    """A running average of the weights and buffers; None for a decay of 0.

    After step n the average becomes ``d * average + (1 - d) * weights``
    (https://arxiv.org/abs/1803.05407 averages evenly; this is its exponential form), where d is
    ``decay``, or (1 + n) / (10 + n) while that is less, as in TensorFlow's
    ExponentialMovingAverage: the first steps, which are far from the last, are soon forgotten.
    """
    if not decay:
        return None

    def update(averages: PARAM_LIST, weights: PARAM_LIST, _: Tensor | int) -> None:
        done = int(average.n_averaged)  # on the CPU: nothing waits for the device
        get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))(averages, weights, done)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    return average


def learning_rate(train: Train, step: int, steps: int) -> float:
    """The rate of ``step`` (from 0) of all ``steps``; ``train.learning_rate`` is the highest.

    Schedules: ``constant``; ``step``: a tenth after each third of the steps; ``cosine``: half a
    cosine down to 0 (https://arxiv.org/abs/1608.03983); ``one_cycle``: half a cosine up from a 25th
    in the first 30 %, then half a cosine down to nearly 0 (https://arxiv.org/abs/1708.07120, with
    the constants of torch's OneCycleLR). During ``warmup`` the rate rises in a straight line to the
    start of the schedule.
    """
    warmup = round(train.warmup * steps)
    if step < warmup:
        return train.learning_rate * _shape(train.schedule, 0.0) * (step + 1) / (warmup + 1)
    return train.learning_rate * _shape(train.schedule, (step - warmup) / max(steps - warmup, 1))


def _shape(schedule: str, t: float) -> float:
    """The share of the highest rate at ``t``, which runs from 0 to 1."""
    if schedule == "step":
        return 0.1 ** math.floor(3 * t)
    if schedule == "cosine":
        return _half_cosine(1, 0, t)
    if schedule == "one_cycle":
        if t < ONE_CYCLE_RISE:
            return _half_cosine(1 / 25, 1, t / ONE_CYCLE_RISE)
        return _half_cosine(1, 1 / 25e4, (t - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))
    return 1.0


def _half_cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2
