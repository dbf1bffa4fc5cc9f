"""Weights to begin with that another training found: the backbone of a network, in a folder.

It holds ``backbone.safetensors``, the weights by their names in
``architectures.Network.backbone``, and ``weights.json``, what fits them and where they came from.
Where a training begins with weights that are drawn at random, both files are there and empty.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imageclf.files import UserError, read_json, write_json
from imageclf.params import Model

if TYPE_CHECKING:
    from torch import Tensor, nn

    from imageclf.network.classifier import Classifier

RECORD, WEIGHTS = "weights.json", "backbone.safetensors"
# The parameters that decide which weights a backbone has; of torchvision's networks the name alone.
ARCHITECTURE = {
    "mlp": ("name", "hidden", "activation"),
    "mlp_sequential": ("name", "hidden", "activation"),
    "cnn": ("name", "width", "depth", "stages", "activation"),
    "resnet": ("name", "width", "depth", "stages", "activation"),
}


@dataclass(frozen=True)
class Pretrained:
    """What fits the weights, and where they came from.

    Attributes:
        architecture: those values of the section ``model`` that decide it.
        channels: of the images.
        mean: of pixels scaled to 0..1, subtracted from them first, channel by channel.
        std: what they are divided by next.
        origin: strings by name, among them the ``sha256`` of the file that the weights were in.
    """

    architecture: dict[str, Any]
    channels: int
    mean: list[float]
    std: list[float]
    origin: dict[str, str]


def architecture(model: Mapping[str, Any]) -> dict[str, Any]:
    """Those values of the section ``model`` that decide which weights its backbone has."""
    return {key: model[key] for key in ARCHITECTURE.get(model["name"], ("name",))}


def write_pretrained(
    folder: Path, pretrained: Pretrained | None, weights: Mapping[str, "Tensor"]
) -> None:
    """Write both files into a folder that exists; without weights, empty ones, without torch."""
    if pretrained is None:
        from safetensors.numpy import save_file as save_nothing

        save_nothing({}, folder / WEIGHTS)
        write_json(folder / RECORD, None)
        return
    from safetensors.torch import save

    # Names that share memory, which a file of torch's may have, must not in this one.
    own = {name: value.clone().contiguous() for name, value in weights.items()}
    (folder / WEIGHTS).write_bytes(save(own))
    write_json(folder / RECORD, asdict(pretrained))


def read_pretrained(folder: Path) -> Pretrained | None:
    """What fits the weights of a folder; None where it says that there are none."""
    record = read_json(folder / RECORD)
    return Pretrained(**record) if record else None


def begin_classifier(
    model: Model, stats: dict[str, Any], folder: Path, image_shape: Sequence[int], classes: int
) -> "Classifier":
    """A classifier to be trained: with fresh weights, but for a backbone that the folder holds.

    With such a backbone come the mean and std of the images that it was trained on.

    Args:
        model: the section of the parameters.
        stats: mean and std of the train split's pixels.
        folder: of ``write_pretrained``.
        image_shape: (H, W, C) of the images.
        classes: the number of outputs.

    Raises:
        UserError: the weights do not fit the parameters or the images.
    """
    from imageclf.network.classifier import build_classifier

    pretrained = read_pretrained(folder)
    if pretrained is None:
        return build_classifier(model, stats, image_shape, classes)
    _check(pretrained, model, image_shape)
    found = {"mean": pretrained.mean, "std": pretrained.std}
    classifier = build_classifier(model, found, image_shape, classes)
    from safetensors.torch import load_file

    load_weights(classifier.network.backbone, load_file(folder / WEIGHTS))
    return classifier


def read_state_dict(path: Path) -> dict[str, "Tensor"]:
    """The tensors by name of a file of torch's or of safetensors.

    Raises:
        UserError: it is neither, or holds something else.
    """
    import torch
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        if content[8:9] == b"{":  # after its length, the header of a file of safetensors
            return load(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a pickle of no torch's is refused in any case
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # broken bytes make torch raise ten kinds of them
        raise UserError(f"model.weights names no file of weights ({_brief(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(x, torch.Tensor) for x in state.values()):
        raise UserError("model.weights names no state dict: save model.state_dict(), and only that")
    return state


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__


def load_weights(backbone: "nn.Module", weights: Mapping[str, "Tensor"]) -> None:
    """Put weights into a backbone, by their names.

    Raises:
        UserError: they are another network's.
    """
    own = backbone.state_dict()
    for problem, names in (
        ("it has no", own.keys() - weights.keys()),
        ("the network has no", weights.keys() - own.keys()),
    ):
        if names:
            others = f" and {len(names) - 1} others" if len(names) > 1 else ""
            raise UserError(f"model.weights: another network's: {problem} {min(names)}{others}")
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise UserError(
                f"model.weights: another network's: {name} is {_shape(weights[name])} there, and "
                f"{_shape(value)} in the network for these images"
            )
    backbone.load_state_dict(dict(weights))


def _shape(value: "Tensor") -> str:
    return " x ".join(map(str, value.shape)) or "a number"


def _check(pretrained: Pretrained, model: Model, image_shape: Sequence[int]) -> None:
    asked = model.model_dump()
    for key, value in pretrained.architecture.items():
        if asked[key] != value:
            raise UserError(
                f"model.{key} is {asked[key]}, but model.weights are those of a network with "
                f"{value}: set model.{key}: {value}"
            )
    channels = image_shape[2]
    if channels != pretrained.channels:
        raise UserError(
            f"model.weights take images of {pretrained.channels} channels, but these have "
            f"{channels}: set transform.channels: {pretrained.channels}, or choose other weights"
        )
