"""Random order of the images of a training, and random changes to each image.

Whole batches are changed, on their device; the changes are drawn for each image. Shift, flip,
rotation and crop are one affine map per image and one resampling. All draws come from torch's
generator of the device, which ``seed_step`` seeds in every step: they depend only on the seed and
the step.
"""

import math
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from imageclf.params import Augment


@dataclass(frozen=True)
class Draws:
    """Random numbers for a ``share`` of a batch of ``batch`` images, on ``device``.

    Numbers are drawn for the whole batch, and those of the share kept: the changes to an image do
    not depend on the number of processes.
    """

    batch: int
    share: slice
    device: torch.device

    def uniform(self, low: float, high: float) -> Tensor:
        """float32, one number per image of the share, from ``low`` to below ``high``."""
        return torch.empty(self.batch, device=self.device).uniform_(low, high)[self.share]

    def integers(self, end: int) -> Tensor:
        """int64, one number per image of the share, from 0 to below ``end``."""
        return torch.randint(0, end, (self.batch,), device=self.device)[self.share]

    def beta(self, alpha: float) -> Tensor:
        """float32, one number per image of the share, from Beta(alpha, alpha)."""
        concentration = torch.full((self.batch,), alpha, device=self.device)
        return torch.distributions.Beta(concentration, concentration).sample()[self.share]


def augment(images: Tensor, params: Augment, draws: Draws) -> Tensor:
    """Change each image (float32, N x C x H x W, 0 to 255) by itself; ``mix`` mixes images.

    The result has the same type and shape; pixels from outside an image are 0.
    """
    if params.shift or params.flip or params.rotate or params.crop_scale < 1:
        images = _resample(images, _affine_maps(images, params, draws))
    if params.brightness or params.contrast:
        images = _jitter(images, params.brightness, params.contrast, draws)
    if params.cutout:
        sides = torch.full((len(images),), params.cutout, device=images.device)
        images = images * ~_squares(images, sides, draws)
    return images


def mix(
    images: Tensor, labels: Tensor, classes: int, params: Augment, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Mix every image with its neighbour, by mixup or cutmix, and their labels in the same way.

    The first and the second image are neighbours, the third and the fourth, and so on: the order of
    a batch is random. A last image without a neighbour is not changed.

    mixup (https://arxiv.org/abs/1710.09412) blends whole images with a weight from
    Beta(alpha, alpha); cutmix (https://arxiv.org/abs/1905.04899) pastes a square of the neighbour
    whose share of the area is such a weight. If both are on, each batch draws one of them.

    Args:
        images: float32, N x C x H x W.
        labels: int64, N.
        classes: their number.
        params: ``mixup`` and ``cutmix`` are the alphas; 0 is off.
        draws: for these images.

    Returns:
        The images, and the labels: unchanged, or the share of each class (float32, N x classes).
    """
    both = params.mixup > 0 and params.cutmix > 0
    blend = torch.rand(()).item() < 0.5 if both else params.mixup > 0
    alpha = params.mixup if blend else params.cutmix
    if not alpha:
        return images, labels
    partner = (torch.arange(len(images), device=images.device) ^ 1).clamp(max=len(images) - 1)
    share = draws.beta(alpha)
    if blend:
        mixed = torch.lerp(images[partner], images, share[:, None, None, None])
    else:
        sides = ((1 - share).sqrt() * images.shape[-1]).round()
        square = _squares(images, sides, draws)
        mixed = torch.where(square, images[partner], images)
        share = 1 - square.float().mean(dim=(1, 2, 3))
    one_hot = functional.one_hot(labels, classes).float()
    return mixed, torch.lerp(one_hot[partner], one_hot, share[:, None])


def epoch_order(images: int, seed: int, epoch: int) -> Tensor:
    """A random permutation (int64) that depends only on the seed and the epoch."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    return torch.randperm(images, generator=generator)


def seed_step(seed: int, step: int, device: torch.device, rank: int = 0) -> None:
    """Seed the generators of the CPU and of ``device`` for one optimisation step.

    torch.manual_seed seeds those of all possible devices, and takes a hundred times as long.
    """
    mixed = zlib.crc32(f"{seed} {step} {rank}".encode())
    torch.default_generator.manual_seed(mixed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(mixed)
    if device.type == "mps":
        torch.mps.manual_seed(mixed)


def _affine_maps(images: Tensor, params: Augment, draws: Draws) -> Tensor:
    """One 2 x 3 matrix per image (float32), from output to input positions, in half sides."""
    angle = draws.uniform(-params.rotate, params.rotate) * (math.pi / 180)
    scale = draws.uniform(params.crop_scale, 1).sqrt()

    def move(side: int) -> Tensor:
        pixels = draws.integers(2 * params.shift + 1) - params.shift
        return (1 - scale) * draws.uniform(-1, 1) + pixels * (2 / side)

    shift_y, shift_x = (move(side) for side in images.shape[2:])
    mirror = 1 - 2 * draws.integers(2) if params.flip else 1
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    rows = (
        torch.stack([cosine * mirror, -sine, shift_x], dim=1),
        torch.stack([sine * mirror, cosine, shift_y], dim=1),
    )
    return torch.stack(rows, dim=1)


def _resample(images: Tensor, maps: Tensor) -> Tensor:
    if not len(images):  # affine_grid raises
        return images
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", align_corners=False)


def _jitter(images: Tensor, brightness: float, contrast: float, draws: Draws) -> Tensor:
    """Scale each image's pixels, and their distance from its mean, by a factor around 1."""

    def factor(reach: float) -> Tensor:
        return draws.uniform(1 - reach, 1 + reach)[:, None, None, None]

    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    changed = ((images - mean) * factor(contrast) + mean) * factor(brightness)
    return changed.clamp(0, 255)


def _squares(images: Tensor, sides: Tensor, draws: Draws) -> Tensor:
    """A mask (bool, N x 1 x H x W): one square of ``sides`` pixels inside each image."""
    height, width = images.shape[2:]

    def inside(length: int) -> Tensor:
        start = (draws.uniform(0, 1) * (length - sides + 1)).floor()
        place = torch.arange(length, device=images.device)
        return (place >= start[:, None]) & (place < (start + sides)[:, None])

    return (inside(height)[:, :, None] & inside(width)[:, None, :])[:, None]
