"""Optimizers and learning-rate schedules by name."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from imageclf.params import Train

ONE_CYCLE_RISE = 0.3


def build_optimizer(train: Train, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer by name, in torch's fused form where it has one.

    Weight decay acts on weights of two and more dimensions; biases and the scales and shifts of
    normalisation layers are left alone, as pulling those towards 0 takes capacity away.
    """
    parameters = [value for value in network.parameters() if value.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate = train.learning_rate
    if train.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=rate, momentum=train.momentum, nesterov=train.nesterov, fused=True
        )
    if train.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=rate, momentum=train.momentum)
    if train.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    return torch.optim.Adam(groups, lr=rate, fused=True)


def weight_average(network: nn.Module, decay: float) -> AveragedModel | None:
    """A running average of the weights and buffers, None for a decay of 0.

    After each step the average becomes ``decay * average + (1 - decay) * weights``
    (https://arxiv.org/abs/1803.05407 averages evenly; this is its exponential form).
    """
    if not decay:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def learning_rate(train: Train, step: int, steps: int) -> float:
    """The rate of one optimisation step.

    Args:
        train: ``schedule`` and what belongs to it; ``learning_rate`` is the highest rate.
        step: from 0.
        steps: of the whole training.

    Returns:
        ``constant``; ``step``: a tenth after each third of the way; ``cosine``: half a cosine down
        to 0 (https://arxiv.org/abs/1608.03983); ``one_cycle``: half a cosine up from a 25th within
        the first 30 %, then half a cosine down to nearly 0 (https://arxiv.org/abs/1708.07120, with
        the constants of torch's OneCycleLR). During the first ``warmup`` share of the steps, a
        straight line up to where the schedule starts.
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
