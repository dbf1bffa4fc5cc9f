"""Losses by name, between the output of a network and classes or mixtures of classes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from imageclf.params import Train

# Takes the network's output (float32, N x classes) and the target: labels (int64, N) or the share
# of each class (float32, N x classes). Gives the mean over the batch.
LossFunction = Callable[[Tensor, Tensor], Tensor]
# Takes the target. Gives the divisor of that mean: the images, or the weights of their classes.
Divisor = Callable[[Tensor], Tensor]


def build_loss(train: Train, labels: Tensor, classes: int) -> LossFunction:
    """The loss by name, with label smoothing and class weights.

    ``cross_entropy`` takes logits and ``nll`` log-probabilities; their values are equal. ``mse``
    takes probabilities and is their mean squared difference from one-hot labels (the Brier score
    over the number of classes). Smoothing moves a share of each label evenly to all classes
    (https://arxiv.org/abs/1512.00567). ``balanced`` weights are images / (classes * images of the
    class), as in scikit-learn; a batch is then averaged over its weights. ``labels`` are those of
    the whole train split (int64, N), on the device of the training.
    """
    weights, smoothing = _class_weights(train, labels, classes), train.label_smoothing

    def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target, weights, label_smoothing=smoothing)

    def nll(output: Tensor, target: Tensor) -> Tensor:
        if target.ndim == 1 and not smoothing:
            return functional.nll_loss(output, target, weights)
        return cross_entropy(output, target)

    def mse(output: Tensor, target: Tensor) -> Tensor:
        target = _shares(target, classes, smoothing)
        squares = (output - target).square().mean(dim=1)
        if weights is None:
            return squares.mean()
        share = target @ weights
        return (squares * share).sum() / share.sum()

    return {"cross_entropy": cross_entropy, "nll": nll, "mse": mse}[train.loss]


def build_divisor(train: Train, labels: Tensor, classes: int) -> Divisor:
    """The divisor of the mean loss; the arguments are those of ``build_loss``.

    The mean of a batch times its divisor is the sum of the same products of its parts.
    """
    weights = _class_weights(train, labels, classes)

    def divisor(target: Tensor) -> Tensor:
        if weights is not None and train.loss == "mse":
            return (_shares(target, classes, train.label_smoothing) @ weights).sum()
        if weights is not None and target.ndim == 1:
            return weights[target].sum()
        # For mixtures of classes torch's cross_entropy also divides by the number of images.
        return image_count(target)

    return divisor


def image_count(target: Tensor) -> Tensor:
    """The number of images: the divisor if all classes have the same weight."""
    return torch.full((), float(len(target)), device=target.device)


def _class_weights(train: Train, labels: Tensor, classes: int) -> Tensor | None:
    """One weight per class (float32); None if all are equal."""
    if train.class_weights == "none":
        return None
    counts = labels.bincount(minlength=classes)
    return (len(labels) / (classes * counts.clamp(min=1))).float()


def _shares(target: Tensor, classes: int, smoothing: float) -> Tensor:
    """The share of each class (float32, N x classes) in a target, smoothed."""
    if target.ndim == 1:
        target = functional.one_hot(target, classes).float()
    return target * (1 - smoothing) + smoothing / classes
