"""The trained classifier, from raw images to probabilities, and its files: safetensors and JSON."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from imageclf.data.shapes import shape_in_memory
from imageclf.files import UserError, atomic_folder
from imageclf.network.architectures import Network, build_network
from imageclf.network.description import MODEL_JSON, Description, read_description
from imageclf.params import Model

# In a batch where no gradient is needed: enough for every core, and few enough for memory.
EVALUATION_IMAGES, EVALUATION_PIXELS = 64, 1 << 21
WEIGHTS = "model.safetensors"
TYPES = {torch.float32: "F32", torch.int64: "I64"}  # the names of the types that are stored


class Classifier(nn.Module):
    """A network behind its own normalisation: takes raw uint8 images.

    ``forward`` gives the network's output, for training; all else uses ``probabilities``.
    """

    def __init__(
        self, network: Network, mean: Sequence[float], std: Sequence[float], output: str
    ) -> None:
        super().__init__()
        self.network, self.output = network, output
        self.temperature = 1.0  # that of a calibration, which is fitted after the training
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
        """The input of the head (float32, N x F) for uint8 N x H x W x C images."""
        return self.features_of(to_pixels(images))

    def features_of(self, pixels: Tensor) -> Tensor:
        """The input of the head for pixels (float32, N x C x H x W, 0 to 255)."""
        result: Tensor = self.network.backbone(pixels * self.scale + self.shift)
        return result

    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities (float32, N x classes) for uint8 N x H x W x C images."""
        return self.as_probabilities(self(images))

    def as_probabilities(self, output: Tensor) -> Tensor:
        """The network's output as probabilities: softmax maps log-probabilities to them, too."""
        return (self.logits(output) / self.temperature).softmax(dim=1)

    def logits(self, output: Tensor) -> Tensor:
        """The network's output as logits, up to a constant for each image."""
        smallest = torch.finfo(torch.float32).tiny
        return output.clamp_min(smallest).log() if self.output == "softmax" else output


def to_pixels(images: Tensor) -> Tensor:
    """Packed uint8 images (N x H x W x C) as float32, N x C x H x W, still 0 to 255."""
    count, height, width, channels = images.shape
    # Without the view torch would convolve grey images as channels last.
    return images.permute(0, 3, 1, 2).view(count, channels, height, width).float()


def build_classifier(
    model: Model, stats: dict[str, list[float]], image_shape: Sequence[int], classes: int
) -> Classifier:
    """A classifier with random weights; ``stats`` are mean and std of the train split's pixels."""
    network = build_network(model, image_shape, classes)
    mean, std = normalisation(model.normalize, stats["mean"], stats["std"])
    return Classifier(network, mean, std, model.output)


def normalisation(
    normalize: str, mean: list[float], std: list[float]
) -> tuple[list[float], list[float]]:
    """What is subtracted from pixels of 0..1, and the divisor, per channel; none gives 0..255."""
    return (mean, std) if normalize == "standard" else ([0.0] * len(mean), [1 / 255] * len(std))


def evaluation_batch(shape: Sequence[int]) -> int:
    """The number of images, of H x W x C, in a batch where no gradient is needed."""
    return max(1, min(EVALUATION_IMAGES, EVALUATION_PIXELS // math.prod(shape[:2])))


def save_classifier(classifier: Classifier, description: Description, folder: Path) -> None:
    """Write ``model.safetensors`` and ``model.json``; the folder appears whole or not at all."""
    from safetensors.torch import save

    with atomic_folder(folder) as target:
        weights = {name: value.contiguous() for name, value in classifier.state_dict().items()}
        (target / WEIGHTS).write_bytes(save(weights))
        description.write(target)


def load_classifier(folder: Path) -> tuple[Classifier, Description]:
    """Rebuild a classifier on the CPU, in eval mode. Nothing is unpickled.

    Raises:
        UserError: a file is missing, the weights do not fit the description, or are no numbers.
    """
    from safetensors.torch import load_file

    description = read_description(folder)
    with torch.device("meta"):
        _check_header(folder / WEIGHTS, _described(description))
    classifier = _described(description)
    classifier.load_state_dict(load_file(folder / WEIGHTS))
    for name, values in classifier.state_dict().items():
        if not values.isfinite().all():
            raise UserError(f"{folder / WEIGHTS}: {name} holds values that are no finite numbers")
    return classifier.eval(), description


def _described(description: Description) -> Classifier:
    return build_classifier(
        description.model,
        {"mean": description.mean, "std": description.std},
        shape_in_memory(description.image_shape),
        len(description.class_names),
    )


def _check_header(path: Path, classifier: Classifier) -> None:
    """Refuse weights of other names, shapes or types than the classifier's, before any is read.

    Raises:
        UserError: names one.
    """
    from safetensors import SafetensorError, safe_open

    wanted = {
        name: (list(value.shape), TYPES[value.dtype])
        for name, value in classifier.state_dict().items()
    }
    try:
        # It refuses a file that is longer or shorter than its header tells.
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no dict
            found = {name: (each.get_shape(), each.get_dtype()) for name, each in slices.items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no usable file ({error}): run `dvc repro train`") from None
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise UserError(
                f"{path} does not fit {MODEL_JSON}: {name} is {_told(found.get(name))} instead of "
                f"{_told(wanted.get(name))}: run `dvc repro train`"
            )


def _told(tensor: tuple[list[int], str] | None) -> str:
    return f"{' x '.join(map(str, tensor[0])) or 'one'} {tensor[1]}" if tensor else "not there"
