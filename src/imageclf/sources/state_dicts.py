"""From a state dict of one of torchvision's or timm's networks to the backbone of ours.

Only tensors are unpickled.
"""

import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from imageclf.files import UserError, sha256_file
from imageclf.network.pretrained import (
    ARCHITECTURE,
    Pretrained,
    architecture,
    load_weights,
    read_state_dict,
)
from imageclf.network_names import TIMM
from imageclf.params import Model
from imageclf.sources.catalog import DataSet
from imageclf.sources.published_weights import LITE0

if TYPE_CHECKING:
    from torch import Tensor, nn

PARAMETER = "model.weights"
SIDE = 224  # pixels, of the images that torchvision's networks are made for
# torchvision renames them too: its DenseNet file has older names (models/densenet.py).
OLD_NAME = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$")
# The auxiliary classifiers of GoogLeNet and Inception, which are used only in training.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# These two add their own normalisation, pixels to -1..1, to that of the others.
OWN_NORMALISATION = ("googlenet", "inception_v3")
# Keys below which files of timm's publishers have the state dict, as in timm/models/_helpers.py.
WITHIN = ("state_dict_ema", "state_dict", "model_ema", "model")


def backbone_of_file(
    model: Model, path: Path, origin: dict[str, str], published: DataSet | None = None
) -> tuple[Pretrained, Mapping[str, "Tensor"]]:
    """The backbone of a state dict; its head is dropped.

    Args:
        model: ``name`` is the network of the state dict.
        path: a file of torch or of safetensors.
        origin: what is to be told of it besides its sha256.
        published: what the file is if it is the published one of the network.

    Raises:
        UserError: it is no state dict, or that of another network.
    """
    if model.name in ARCHITECTURE:
        raise UserError(
            f"{PARAMETER}: for model.name: {model.name} give a folder such as models/classifier, "
            "or models:/NAME@champion; a single file is one of torchvision's networks or timm's"
        )
    state = read_state_dict(path, WITHIN if published else ())
    if published is LITE0:
        state = named_in_order(state, model)
    elif published and model.name.startswith(TIMM):
        state = named_by_timm(state, model)
    channels, weights = _without_head(state, model)
    mean, std = normalisation_of(model.name)
    pretrained = Pretrained(
        architecture=architecture(model.model_dump()),
        channels=channels,
        mean=mean if channels == 3 else [statistics.mean(mean)] * channels,
        std=std if channels == 3 else [statistics.mean(std)] * channels,
        origin=origin | {"sha256": sha256_file(path)},
    )
    return pretrained, weights


def named_in_order(state: Mapping[str, "Tensor"], model: Model) -> dict[str, "Tensor"]:
    """Tensors that stand in the order of a network's, by its names for them.

    Raises:
        UserError: they are more or fewer, or have other shapes.
    """
    own = _network(model, channels=3, classes=1000).state_dict()
    shapes = [[value.shape for value in values.values()] for values in (own, state)]
    if shapes[0] != shapes[1]:
        raise UserError(f"{PARAMETER}: the tensors are not those of {model.name}")
    return dict(zip(own, state.values(), strict=True))


def named_by_timm(state: Mapping[str, "Tensor"], model: Model) -> dict[str, "Tensor"]:
    """The tensors that a publisher names in another way, by timm's names.

    Raises:
        UserError: timm finds that they are of another network.
    """
    from timm import create_model

    try:
        network = create_model(
            model.name.removeprefix(TIMM),
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": dict(state)},
        )
    except (RuntimeError, KeyError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{PARAMETER}: of another network than {model.name}: {reason}") from None
    return dict(network.state_dict())


def normalisation_of(name: str) -> tuple[list[float], list[float]]:
    """The mean and std with which the published weights of a network were trained."""
    if name.startswith(TIMM):
        from imageclf.network.published import timm_configuration

        configuration = timm_configuration(name)
        return list(configuration.mean), list(configuration.std)
    from torchvision.models import get_model_weights

    if name in OWN_NORMALISATION:
        return [0.5] * 3, [0.5] * 3
    preset = get_model_weights(name).DEFAULT.transforms()
    return list(preset.mean), list(preset.std)


def _without_head(state: Mapping[str, "Tensor"], model: Model) -> tuple[int, dict[str, "Tensor"]]:
    """The channels of the images, and the tensors that fit the network's backbone."""
    from imageclf.network.published import cut_off_head, first_convolution, head_of

    state = {OLD_NAME.sub(r"\1\2", name): value for name, value in state.items()}
    network = _network(model, channels=3)
    first = state.get(f"{first_convolution(network)[0]}.weight")
    channels = 3 if first is None or first.ndim != 4 else first.shape[1]
    if channels != 3:
        network = _network(model, channels)
    others = (f"{head_of(network)[0]}.", *AUXILIARY)
    weights = {name: value for name, value in state.items() if not name.startswith(others)}
    load_weights(cut_off_head(network)[0], weights)
    return channels, weights


def _network(model: Model, channels: int, classes: int = 2) -> "nn.Module":
    """The whole network, for images of the size that its published weights were trained on."""
    from imageclf.network.published import timm_configuration, timm_network, torchvision_network

    if model.name.startswith(TIMM):
        _, height, width = timm_configuration(model.name).input_size
        return timm_network(model, (height, width, channels), classes)
    return torchvision_network(model, (SIDE, SIDE, channels), classes)
