"""Processes that train one network together, each on its share of every batch.

The results are those of one process, except for rounding: a sum over a batch is the sum of the sums
over its shares. Only dropout and drop path depend on their number.
"""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from imageclf.files import UserError

# A process that is being ended (Ctrl-C, a kill) sees the others end a moment before itself.
MOMENT_S = 1.0


@dataclass(frozen=True)
class Group:
    """This process among those of torch's default process group: number ``rank`` of ``size``."""

    rank: int
    size: int

    def share(self, images: int) -> slice:
        """This process's part of a batch of ``images``; it is empty if the batch is too small."""
        return part(images, self.rank, self.size)

    def add(self, values: Tensor) -> None:
        """Make ``values`` the sum over all processes, the same to the bit in each of them."""
        _add(values)

    def add_gradients(self, gradients: list[Tensor], figures: Tensor) -> Tensor:
        """Make gradients and figures (float32, one dimension) the sums over all processes.

        All are sent in one flat tensor. (DistributedDataParallel averages the means of the shares,
        which is wrong if the shares are not equal, and imports torch's compiler.)

        Args:
            gradients: changed in place.
            figures: are not changed.

        Returns:
            The summed figures.
        """
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), figures])
        _add(flat)
        parts = flat.split([*(each.numel() for each in gradients), len(figures)])
        for gradient, added in zip(gradients, parts[:-1], strict=True):
            gradient.copy_(added.view_as(gradient))
        summed: Tensor = parts[-1]
        return summed

    def share_batch_norm(self, network: nn.Module) -> None:
        """Make batch norm use the whole batch: by torch's layer, which needs a GPU, or by ours."""
        if next(network.parameters()).device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
            return
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.__class__ = SharedBatchNorm

    def lead(self, state: dict[str, Any]) -> None:
        """Send the state from which all start to the other processes; for the first process."""
        file = io.BytesIO()
        torch.save(state, file)
        with _peers():
            distributed.broadcast_object_list([file.getvalue()])

    def follow(self) -> dict[str, Any]:
        """The state that the first process sends, on the CPU; for the other processes."""
        held = [b""]
        with _peers():
            distributed.broadcast_object_list(held)
        file = io.BytesIO(held[0])
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return state

    def agree(self, fingerprint: str) -> None:
        """Check that all processes train the same model.

        Raises:
            UserError: the fingerprints differ.
        """
        seen: list[Any] = [None] * self.size
        with _peers():
            distributed.all_gather_object(seen, fingerprint)
        if len(set(seen)) > 1:
            raise UserError(
                "the machines would not train the same model: bring params.yaml, the source and "
                "data/prepared of all to the same state (git pull, dvc pull)"
            )


def part(images: int, number: int, parts: int) -> slice:
    """Part ``number`` (from 0) of a batch of ``images`` in so many ``parts``; it may be empty.

    Parts differ by two images at most. The pairs that ``augment.mix`` mixes stay together.
    """
    pairs = -(-images // 2)
    start, stop = (2 * (pairs * end // parts) for end in (number, number + 1))
    return slice(start, min(stop, images))


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm with the mean and the variance of a batch that several processes share."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (N x C x H x W; N may be 0); the type stays."""
        if not self.training:
            return super().forward(images)
        values, channels = images.float(), images.shape[1]
        count = values.new_tensor([values.numel() / channels])
        sums = _sum(torch.cat([values.sum(dim=(0, 2, 3)), count]))
        count = sums[channels]
        mean = sums[:channels] / count
        centred = values - mean[:, None, None]
        variance = _sum(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(images.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes. All of them add to the loss, so the gradient is also a sum."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone()
        _add(total)
        return total

    backward = forward  # type: ignore[assignment]


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


def _add(values: Tensor) -> None:
    with _peers():
        distributed.all_reduce(values)


@contextmanager
def _peers() -> Iterator[None]:
    """Raise a UserError if another process has ended."""
    try:
        yield
    except RuntimeError as error:
        time.sleep(MOMENT_S)
        raise UserError(
            "another process of this training ended; `dvc repro` goes on from the last checkpoint"
        ) from error
