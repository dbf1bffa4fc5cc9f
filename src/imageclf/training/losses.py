"""Losses by name, of what a network gives against classes or mixtures of classes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from imageclf.params import Train

# Takes the network's output (float32, N x classes) and the target: labels (int64, N) or the share
# of each class (float32, N x classes). Gives the mean over the batch.
LossFunction = Callable[[Tensor, Tensor], Tensor]
# What that mean is divided by, of a target: the images, or the weights of their classes.
Divisor = Callable[[Tensor], Tensor]


def build_loss(train: Train, labels: Tensor, classes: int) -> LossFunction:
    """The loss by name, with label smoothing and class weights.

    ``cross_entropy`` takes logits and ``nll`` log-probabilities, both with the same value; ``mse``
    takes probabilities and is their mean squared difference from one-hot labels (the Brier score
    over the number of classes). Smoothing moves a share of each label evenly to all classes
    (https://arxiv.org/abs/1512.00567). ``balanced`` weights are images / (classes * images of the
    class), as in scikit-learn; a batch is then averaged over its weights.

    Args:
        train: ``loss``, ``label_smoothing`` and ``class_weights``.
        labels: of the whole train split (int64, N), on the device of the training.
        classes: their number.
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
    """What the mean of the loss by name is divided by; the arguments are those of ``build_loss``.

    The means of two halves of a batch, each times its divisor, add up to the mean of the batch
    times its own.
    """
    weights = _class_weights(train, labels, classes)

    def divisor(target: Tensor) -> Tensor:
        if weights is not None and train.loss == "mse":
            return (_shares(target, classes, train.label_smoothing) @ weights).sum()
        if weights is not None and target.ndim == 1:
            return weights[target].sum()
        # Of mixtures of classes too, torch's cross_entropy weighs each and divides by their number.
        return image_count(target)

    return divisor


def image_count(target: Tensor) -> Tensor:
    """The number of images, which is the divisor where all classes weigh the same."""
    return torch.full((), float(len(target)), device=target.device)


def _class_weights(train: Train, labels: Tensor, classes: int) -> Tensor | None:
    """One weight per class (float32), None where all count the same."""
    if train.class_weights == "none":
        return None
    counts = labels.bincount(minlength=classes)
    return (len(labels) / (classes * counts.clamp(min=1))).float()


def _shares(target: Tensor, classes: int, smoothing: float) -> Tensor:
    """The share of each class (float32, N x classes) in a target, smoothed."""
    if target.ndim == 1:
        target = functional.one_hot(target, classes).float()
    return target * (1 - smoothing) + smoothing / classes
