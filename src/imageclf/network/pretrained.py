"""The folder of pretrained weights: the backbone of a network from another training.

It holds ``backbone.safetensors``, the weights by their names in ``architectures.Network.backbone``,
and ``weights.json``, what fits them and their origin. If a training begins with random weights,
both files exist and are empty. ``input.json`` tells which images a published network wants.
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
# The parameters that decide which weights a backbone has; for torchvision's networks the name.
ARCHITECTURE = {
    "mlp": ("name", "hidden", "activation"),
    "mlp_sequential": ("name", "hidden", "activation"),
    "cnn": ("name", "width", "depth", "stages", "activation"),
    "resnet": ("name", "width", "depth", "stages", "activation"),
}


@dataclass(frozen=True)
class Pretrained:
    """What fits the weights, and their origin.

    Attributes:
        architecture: the values of section ``model`` that decide the architecture.
        channels: of the images.
        mean: per channel, of pixels scaled to 0..1; subtracted first.
        std: per channel; the divisor after that.
        origin: strings by name, among them the ``sha256`` of the file of the weights.
    """

    architecture: dict[str, Any]
    channels: int
    mean: list[float]
    std: list[float]
    origin: dict[str, str]


def architecture(model: Mapping[str, Any]) -> dict[str, Any]:
    """The values of section ``model`` that decide which weights its backbone has."""
    return {key: model[key] for key in ARCHITECTURE.get(model["name"], ("name",))}


def write_pretrained(
    folder: Path, pretrained: Pretrained | None, weights: Mapping[str, "Tensor"]
) -> None:
    """Write both files into an existing folder; without weights they are empty, without torch."""
    if pretrained is None:
        from safetensors.numpy import save_file as save_nothing

        save_nothing({}, folder / WEIGHTS)
        write_json(folder / RECORD, None)
        return
    from safetensors.torch import save

    # Tensors of a torch file may share memory; safetensors does not allow that.
    own = {name: value.clone().contiguous() for name, value in weights.items()}
    (folder / WEIGHTS).write_bytes(save(own))
    write_json(folder / RECORD, asdict(pretrained))


def read_pretrained(folder: Path) -> Pretrained | None:
    """What fits the weights of a folder; None if it holds none."""
    record = read_json(folder / RECORD)
    return Pretrained(**record) if record else None


def begin_classifier(
    model: Model, stats: dict[str, Any], folder: Path, image_shape: Sequence[int], classes: int
) -> "Classifier":
    """A classifier to be trained: random weights, and the backbone in ``folder`` if there is one.

    A pretrained backbone keeps the mean and std of its own training images; else ``stats`` of the
    train split's pixels are used. ``image_shape`` is (H, W, C).

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


def read_state_dict(path: Path, within: Sequence[str] = ()) -> dict[str, "Tensor"]:
    """The tensors by name of a file of torch or of safetensors.

    In a file of torch they may stand below one of the keys ``within``.

    Raises:
        UserError: it is neither, or holds something else.
    """
    import torch
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        if content[8:9] == b"{":  # safetensors: a JSON header after its length
            return load(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a foreign pickle is refused in any case
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch raise many types
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise UserError(f"model.weights names no file of weights ({reason})") from None
    if isinstance(state, dict):
        state = next((state[key] for key in within if key in state), state)
    if not isinstance(state, dict) or not all(isinstance(x, torch.Tensor) for x in state.values()):
        raise UserError("model.weights names no state dict: save model.state_dict(), and only that")
    return state


def load_weights(backbone: "nn.Module", weights: Mapping[str, "Tensor"]) -> None:
    """Put weights into a backbone, by their names.

    Raises:
        UserError: the weights are those of another network.
    """
    own = backbone.state_dict()
    for problem, names in (
        ("it has no", own.keys() - weights.keys()),
        ("the network has no", weights.keys() - own.keys()),
    ):
        if names:
            others = f" and {len(names) - 1} others" if len(names) > 1 else ""
            raise UserError(f"model.weights: of another network: {problem} {min(names)}{others}")
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise UserError(
                f"model.weights: of another network: {name} is {_shape(weights[name])} there, and "
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
