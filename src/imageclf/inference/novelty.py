"""How unlike the images of val an image is: a part of the exported graph."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Novelty(nn.Module):
    """The distance of an image to the nearest of some images of val.

    Deep nearest neighbours (https://arxiv.org/abs/2204.06507). An image is a point: its features,
    at length one, and four statistics of its pixels. Everything is float32.

    Attributes:
        references: the points of the images of val, R x (F + 4).
        shift: what is subtracted from the statistics, 4.
        scale: the factors after that, 4.
        threshold: the distance above which an image is unlike those of val.
    """

    def __init__(self, references: Tensor, shift: Tensor, scale: Tensor, threshold: Tensor) -> None:
        super().__init__()
        self.register_buffer("references", references)
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        self.register_buffer("threshold", threshold)
        self.references: Tensor
        self.shift: Tensor
        self.scale: Tensor
        self.threshold: Tensor

    def forward(self, features: Tensor, statistics: Tensor) -> Tensor:
        """The squared distance over the squared threshold (float32, N): above 1 is unlike val.

        Not its root, which would make rounding errors near 0 large.

        Args:
            features: float32, N x F, the input of the classifier's head.
            statistics: float32, N x 4, see ``statistics``.
        """
        points = points_of(features, statistics, self.shift, self.scale)
        return squares(points, self.references).amin(dim=1).clamp_min(0) / self.threshold.square()


def points_of(features: Tensor, statistics: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """The points of images (float32, N x (F + 4)); the arguments are those of ``Novelty``."""
    return torch.cat([functional.normalize(features), (statistics - shift) * scale], dim=1)


def squares(points: Tensor, references: Tensor) -> Tensor:
    """The squared distance of each point to each reference (N x R), up to rounding."""
    lengths = points.square().sum(dim=1, keepdim=True) + references.square().sum(dim=1)
    return lengths - 2 * points @ references.T


def statistics(pixels: Tensor) -> Tensor:
    """Brightness, contrast and roughness (down and across) of pixels (N x C x H x W, 0 to 255).

    float32, N x 4. Roughness is the mean difference between neighbouring pixels, as on a torus.
    """
    grey = pixels.mean(dim=1) / 255
    brightness = grey.mean(dim=(1, 2), keepdim=True)
    contrast = (grey - brightness).square().mean(dim=(1, 2)).sqrt()
    roughness = [(grey - grey.roll(1, dim)).abs().mean(dim=(1, 2)) for dim in (1, 2)]
    return torch.stack([brightness[:, 0, 0], contrast, *roughness], dim=1)
