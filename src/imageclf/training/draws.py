"""Random numbers of a training step: they depend only on the seed, the step and the image.

All come from torch's generator of a device, which ``seed_step`` seeds in every step.
"""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Random numbers for a ``share`` of a batch of ``batch`` images, on ``device``.

    Numbers are drawn for the whole batch, and those of the share kept: the changes to an image do
    not depend on how a batch is shared.
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


def seed_step(seed: int, step: int, device: torch.device, stream: int = 0) -> None:
    """Seed the generators of the CPU and of ``device`` for one optimisation step.

    Another ``stream`` of the same step has other numbers.
    torch.manual_seed seeds those of all possible devices, and takes a hundred times as long.
    """
    mixed = zlib.crc32(f"{seed} {step} {stream}".encode())
    torch.default_generator.manual_seed(mixed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(mixed)
    if device.type == "mps":
        torch.mps.manual_seed(mixed)
