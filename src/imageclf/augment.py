"""What a training draws at random of its images: their order, and changes to each of them.

Changes are made to whole batches on the device they are on, each image drawing its own.

Shift, flip, rotation and crop are one affine map per image and one resampling for all of them.
Everything is drawn from torch's generator of the device, so the seed repeats it.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from imageclf.params import Augment


def augment(images: Tensor, params: Augment) -> Tensor:
    """Change every image on its own; mixing is left to ``mix``.

    Args:
        images: float32, N x C x H x W, pixels from 0 to 255.
        params: what is asked for; everything at zero returns the images as they are.

    Returns:
        float32, N x C x H x W; what comes into view from outside an image is 0.
    """
    if params.shift or params.flip or params.rotate or params.crop_scale < 1:
        images = _resample(images, _affine_maps(images, params))
    if params.brightness or params.contrast:
        images = _jitter(images, params.brightness, params.contrast)
    if params.cutout:
        sides = torch.full((len(images),), params.cutout, device=images.device)
        images = images * ~_squares(images, sides)
    return images


def mix(images: Tensor, labels: Tensor, classes: int, params: Augment) -> tuple[Tensor, Tensor]:
    """Mix every image with another of the batch, by mixup or cutmix, and their labels likewise.

    mixup (https://arxiv.org/abs/1710.09412) blends whole images with a weight from
    Beta(alpha, alpha); cutmix (https://arxiv.org/abs/1905.04899) pastes a square of the partner
    whose area has such a share. Where both are asked for, each batch draws one of the two.

    Args:
        images: float32, N x C x H x W.
        labels: int64, N.
        classes: their number.
        params: ``mixup`` and ``cutmix`` are the alphas; 0 is off.

    Returns:
        The images, and either the labels as they were or the share of each class (float32,
        N x classes).
    """
    both = params.mixup > 0 and params.cutmix > 0
    blend = torch.rand(()).item() < 0.5 if both else params.mixup > 0
    alpha = params.mixup if blend else params.cutmix
    if not alpha:
        return images, labels
    partner = torch.randperm(len(images), device=images.device)
    concentration = torch.full((len(images),), alpha, device=images.device)
    share = torch.distributions.Beta(concentration, concentration).sample()
    if blend:
        mixed = torch.lerp(images[partner], images, share[:, None, None, None])
    else:
        sides = ((1 - share).sqrt() * images.shape[-1]).round()
        square = _squares(images, sides)
        mixed = torch.where(square, images[partner], images)
        share = 1 - square.float().mean(dim=(1, 2, 3))
    one_hot = functional.one_hot(labels, classes).float()
    return mixed, torch.lerp(one_hot[partner], one_hot, share[:, None])


def epoch_order(images: int, seed: int, epoch: int) -> Tensor:
    """A random permutation (int64) that depends on the seed and the epoch alone."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    return torch.randperm(images, generator=generator)


def to_pixels(images: Tensor) -> Tensor:
    """Packed uint8 images (N x H x W [x C]) as float32, N x C x H x W, still 0 to 255."""
    channels_first = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return channels_first.float()


def _affine_maps(images: Tensor, params: Augment) -> Tensor:
    """One 2 x 3 matrix per image (float32) from output to input places, in units of half a side."""
    count, _, height, width = images.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count, device=images.device).uniform_(low, high)

    angle = uniform(-params.rotate, params.rotate) * (math.pi / 180)
    scale = uniform(params.crop_scale, 1).sqrt()
    room = 1 - scale
    reach = 2 * params.shift + 1
    pixels = torch.randint(0, reach, (2, count), device=images.device) - params.shift
    shift_x = room * uniform(-1, 1) + pixels[0] * (2 / width)
    shift_y = room * uniform(-1, 1) + pixels[1] * (2 / height)
    mirror = 1 - 2 * torch.randint(0, 2, (count,), device=images.device) if params.flip else 1
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    rows = (
        torch.stack([cosine * mirror, -sine, shift_x], dim=1),
        torch.stack([sine * mirror, cosine, shift_y], dim=1),
    )
    return torch.stack(rows, dim=1)


def _resample(images: Tensor, maps: Tensor) -> Tensor:
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", align_corners=False)


def _jitter(images: Tensor, brightness: float, contrast: float) -> Tensor:
    """Scale each image's pixels, and their distance from its mean, by a factor around 1."""

    def factor(reach: float) -> Tensor:
        factors = torch.empty(len(images), device=images.device).uniform_(1 - reach, 1 + reach)
        return factors[:, None, None, None]

    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    changed = ((images - mean) * factor(contrast) + mean) * factor(brightness)
    return changed.clamp(0, 255)


def _squares(images: Tensor, sides: Tensor) -> Tensor:
    """A mask (bool, N x 1 x H x W): one square per image, of ``sides`` pixels, wholly inside."""
    count, _, height, width = images.shape

    def inside(length: int) -> Tensor:
        start = (torch.rand(count, device=images.device) * (length - sides + 1)).floor()
        place = torch.arange(length, device=images.device)
        return (place >= start[:, None]) & (place < (start + sides)[:, None])

    return (inside(height)[:, :, None] & inside(width)[:, None, :])[:, None]
