"""Losses by name, of what a network gives against classes or mixtures of classes."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from imageclf.params import Train

# Takes the network's output (float32, N x classes) and the target: labels (int64, N) or the share
# of each class (float32, N x classes). Gives the mean over the batch.
LossFunction = Callable[[Tensor, Tensor], Tensor]


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
    weights: Tensor | None = None
    if train.class_weights == "balanced":
        counts = labels.bincount(minlength=classes)
        weights = (len(labels) / (classes * counts.clamp(min=1))).float()
    smoothing = train.label_smoothing

    def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target, weights, label_smoothing=smoothing)

    def nll(output: Tensor, target: Tensor) -> Tensor:
        if target.ndim == 1 and not smoothing:
            return functional.nll_loss(output, target, weights)
        return cross_entropy(output, target)

    def mse(output: Tensor, target: Tensor) -> Tensor:
        if target.ndim == 1:
            target = functional.one_hot(target, classes).float()
        target = target * (1 - smoothing) + smoothing / classes
        squares = (output - target).square().mean(dim=1)
        if weights is None:
            return squares.mean()
        share = target @ weights
        return (squares * share).sum() / share.sum()

    return {"cross_entropy": cross_entropy, "nll": nll, "mse": mse}[train.loss]
