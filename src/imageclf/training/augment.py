"""Random order of the images of a training, and random changes to each image.

Whole batches are changed, on their device; the changes are drawn for each image. Shift, flip,
rotation and crop are one affine map per image and one resampling.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from imageclf.network.classifier import to_pixels
from imageclf.params import Augment
from imageclf.training.draws import Draws
from imageclf.training.policies import apply_policy

# Of random erasing, https://arxiv.org/abs/1708.04896: shares of the area, and height over width.
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)


def augmented(images: Tensor, params: Augment, draws: Draws) -> Tensor:
    """Change each packed image (uint8, N x H x W x C) by itself; ``mix`` mixes images.

    Returns:
        float32, N x C x H x W, 0 to 255.
    """
    if params.policy != "none":
        on_cpu = replace(draws, device=torch.device("cpu"))
        changed = apply_policy(images.permute(0, 3, 1, 2), params.policy, on_cpu)
        images = changed.permute(0, 2, 3, 1)
    return augment(to_pixels(images), params, draws)


def augment(images: Tensor, params: Augment, draws: Draws) -> Tensor:
    """Change each image (float32, N x C x H x W, 0 to 255) by itself, but for ``params.policy``.

    The result has the same type and shape; pixels from outside an image are 0.
    """
    if params.shift or params.flip or params.rotate or params.crop_scale < 1:
        images = _resample(images, _affine_maps(images, params, draws))
    if params.brightness or params.contrast:
        images = _jitter(images, params.brightness, params.contrast, draws)
    if params.cutout:
        sides = torch.full((len(images),), params.cutout, device=images.device)
        images = images * ~_boxes(images, sides, sides, draws)
    if params.erase:
        images = images * ~_erased(images, params.erase, draws)
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
        square = _boxes(images, sides, sides, draws)
        mixed = torch.where(square, images[partner], images)
        share = 1 - square.float().mean(dim=(1, 2, 3))
    one_hot = functional.one_hot(labels, classes).float()
    return mixed, torch.lerp(one_hot[partner], one_hot, share[:, None])


def epoch_order(images: int, seed: int, epoch: int) -> Tensor:
    """A random permutation (int64) that depends only on the seed and the epoch."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    return torch.randperm(images, generator=generator)


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


def _erased(images: Tensor, probability: float, draws: Draws) -> Tensor:
    """A mask (bool, N x 1 x H x W): a box of random area and shape in a share of the images."""
    height, width = images.shape[2:]
    area = draws.uniform(*ERASED_AREA) * (height * width)
    ratio = draws.uniform(*(math.log(end) for end in ERASED_RATIO)).exp()
    chosen = draws.uniform(0, 1) < probability
    tall = (area * ratio).sqrt().round().clamp(1, height) * chosen
    return _boxes(images, tall, (area / ratio).sqrt().round().clamp(1, width), draws)


def _boxes(images: Tensor, heights: Tensor, widths: Tensor, draws: Draws) -> Tensor:
    """A mask (bool, N x 1 x H x W): one box of so many pixels at a random place in each image."""

    def inside(length: int, sides: Tensor) -> Tensor:
        start = (draws.uniform(0, 1) * (length - sides + 1)).floor()
        place = torch.arange(length, device=images.device)
        return (place >= start[:, None]) & (place < (start + sides)[:, None])

    rows, columns = inside(images.shape[2], heights), inside(images.shape[3], widths)
    return (rows[:, :, None] & columns[:, None, :])[:, None]
