"""The trained thing: raw images in, probabilities out, in a folder of safetensors and JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from imageclf.data.shapes import shape_in_memory
from imageclf.files import UserError, atomic_folder, read_json, write_json
from imageclf.network.architectures import Network, build_network
from imageclf.params import Model

# At a time where no gradient is needed: enough to keep every core busy, and not to fill memory.
EVALUATION_IMAGES, EVALUATION_PIXELS = 64, 1 << 21


# Of the section ``model``: where a training began, which decides nothing of what came out of it.
WHOLE = {"weights": "none", "freeze": "none"}


@dataclass(frozen=True)
class Description:
    """Everything needed to rebuild a classifier from its weights, and what it was made from.

    Attributes:
        fingerprint: sha256 over all that determined the training.
        class_names: name of each output.
        image_shape: of the uint8 images it takes, as in files: (H, W) if they are grey.
        fit: how an image comes to that shape (see ``decoding.Fit``).
        mean: per channel, of pixels scaled to 0..1, subtracted first.
        std: per channel, divided by next.
        model: the section ``model`` of the parameters, but for what ``WHOLE`` names.
        data: sha256 of the train and the val split.
        weights: where those came from that the training began with; empty if they were drawn.
        epoch: the epoch, from 1, whose weights these are.
    """

    fingerprint: str
    class_names: list[str]
    image_shape: list[int]
    fit: str
    mean: list[float]
    std: list[float]
    model: dict[str, Any]
    data: dict[str, str]
    weights: dict[str, str]
    epoch: int


class Classifier(nn.Module):
    """A network behind its own normalisation: takes raw uint8 images.

    ``forward`` gives what the network gives, for training; ``probabilities`` is what everyone else
    wants.
    """

    def __init__(
        self, network: Network, mean: Sequence[float], std: Sequence[float], output: str
    ) -> None:
        super().__init__()
        self.network, self.output = network, output
        spread = torch.tensor(std, dtype=torch.float64)
        scale, shift = 1 / (255 * spread), -torch.tensor(mean, dtype=torch.float64) / spread
        self.register_buffer("scale", scale.float().reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().reshape(1, -1, 1, 1), persistent=False)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """The network's output (float32, N x classes) for uint8 N x H x W x C images."""
        return self.from_pixels(to_pixels(images))

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """The network's output for pixels (float32, N x C x H x W, 0 to 255)."""
        result: Tensor = self.network(pixels * self.scale + self.shift)
        return result

    def features(self, images: Tensor) -> Tensor:
        """What the head is given (float32, N x F) for uint8 images."""
        result: Tensor = self.network.backbone(to_pixels(images) * self.scale + self.shift)
        return result

    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities (float32, N x classes).

        The softmax of log-probabilities is the probabilities themselves, as it is of logits.
        """
        return self.as_probabilities(self(images))

    def as_probabilities(self, output: Tensor) -> Tensor:
        """The network's output as probabilities, likewise."""
        return output if self.output == "softmax" else output.softmax(dim=1)


def to_pixels(images: Tensor) -> Tensor:
    """Packed uint8 images (N x H x W x C) as float32, N x C x H x W, still 0 to 255."""
    count, height, width, channels = images.shape
    # The view makes grey images contiguous to torch, which else convolves them as channels last.
    return images.permute(0, 3, 1, 2).view(count, channels, height, width).float()


def build_classifier(
    model: Model, stats: dict[str, list[float]], image_shape: Sequence[int], classes: int
) -> Classifier:
    """A classifier with fresh weights; ``stats`` are mean and std of the train split's pixels."""
    network = build_network(model, image_shape, classes)
    mean, std = normalisation(model.normalize, stats["mean"], stats["std"])
    return Classifier(network, mean, std, model.output)


def normalisation(
    normalize: str, mean: list[float], std: list[float]
) -> tuple[list[float], list[float]]:
    """What is subtracted from pixels of 0..1, and what they are divided by, channel by channel.

    Args:
        normalize: standard, or none for pixels of 0..255.
        mean: of the pixels.
        std: likewise.
    """
    return (mean, std) if normalize == "standard" else ([0.0] * len(mean), [1 / 255] * len(std))


def evaluation_batch(shape: Sequence[int]) -> int:
    """How many images, of H x W x C, go through a network at a time."""
    return max(1, min(EVALUATION_IMAGES, EVALUATION_PIXELS // math.prod(shape[:2])))


def save_classifier(classifier: Classifier, description: Description, folder: Path) -> None:
    """Write ``model.safetensors`` and ``model.json``: the folder appears whole or not at all."""
    from safetensors.torch import save

    with atomic_folder(folder) as target:
        weights = {name: value.contiguous() for name, value in classifier.state_dict().items()}
        (target / "model.safetensors").write_bytes(save(weights))
        write_json(target / "model.json", asdict(description))


def load_classifier(folder: Path) -> tuple[Classifier, Description]:
    """Rebuild a classifier on the CPU, in eval mode. Nothing is unpickled.

    Raises:
        UserError: a file is missing, or the weights do not fit the description.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        description = Description(**read_json(folder / "model.json"))
        model = Model.model_validate(description.model | WHOLE)
    except (TypeError, ValidationError):
        raise UserError(
            f"{folder}: model.json is none of this version's: run `dvc repro train` there again"
        ) from None
    classifier = build_classifier(
        model,
        {"mean": description.mean, "std": description.std},
        shape_in_memory(description.image_shape),
        len(description.class_names),
    )
    try:
        classifier.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{folder}: model.safetensors does not fit model.json ({error}): run `dvc repro train`"
        ) from None
    return classifier.eval(), description
