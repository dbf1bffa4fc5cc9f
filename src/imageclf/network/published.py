"""The networks of torchvision and timm, made for our images and cut before their head."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from imageclf.files import UserError
from imageclf.network_names import TIMM
from imageclf.params import Model

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

Layer = TypeVar("Layer", bound=nn.Module)
# Networks of torchvision with auxiliary classifiers, which are used only in training.
WITH_AUXILIARIES = ("googlenet", "inception_v3")


def torchvision_network(model: Model, image_shape: Sequence[int], classes: int) -> nn.Module:
    """A classification model of torchvision by its name, with random weights.

    Its last linear layer is replaced to fit the number of classes, and its first convolution if the
    images are not RGB. Auxiliary classifiers are left out.
    """
    from torchvision.models import get_model

    settings = {"aux_logits": False, "init_weights": True} if model.name in WITH_AUXILIARIES else {}
    network: nn.Module = get_model(model.name, weights=None, **settings)
    _replace_head(network, classes)
    if image_shape[2] != 3:
        name, first = first_convolution(network)
        network.set_submodule(name, _for_channels(first, image_shape[2]))
    if model.drop_path != "auto":
        _set_drop_path(network, model.drop_path)
    return _checked(network, model.name, image_shape, classes)


def _set_drop_path(network: nn.Module, highest: float) -> None:
    """Set the rate of the block that torchvision skips most often; the others keep their ratio."""
    from torchvision.ops import StochasticDepth

    blocks = [block for _, block in _layers(network, StochasticDepth)]
    factor = highest / max((block.p for block in blocks), default=1)
    for block in blocks:
        block.p *= factor


def timm_network(model: Model, image_shape: Sequence[int], classes: int) -> nn.Module:
    """A model of timm by its name, with random weights, for any number of classes and channels.

    One that is made for images of one size is made for the size of these.

    Raises:
        UserError: timm has no weights of that name, the images do not fit, or there are no blocks
            for ``model.drop_path`` to skip.
    """
    from timm import create_model

    configuration = timm_configuration(model.name)
    height, width, channels = image_shape
    settings: dict[str, Any] = {}
    if configuration.fixed_input_size:
        settings["img_size"] = (height, width)
    if model.drop_path != "auto":
        settings["drop_path_rate"] = model.drop_path
    try:
        network: nn.Module = create_model(
            model.name.removeprefix(TIMM), num_classes=classes, in_chans=channels, **settings
        )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        if "drop_path_rate" in str(error):
            raise _skips_nothing(model) from None
        raise _does_not_take(model.name, height, error) from None
    if settings.get("drop_path_rate") and not _skips_blocks(network):
        raise _skips_nothing(model)
    # timm draws some heads as wide as suits a thousand classes, which a few never make up for.
    _replace_head(network, classes)
    return _checked(network, model.name, image_shape, classes)


def _skips_blocks(network: nn.Module) -> bool:
    """Whether a network of timm has a block with a drop path, and a shortcut around it."""
    from timm.layers.drop import DropPath

    return any(
        getattr(block, "has_skip", True)
        for block in network.modules()
        if any(isinstance(child, DropPath) for child in block.children())
    )


def _skips_nothing(model: Model) -> UserError:
    return UserError(
        f"model.drop_path: {model.drop_path} is for networks with blocks to skip, and {model.name} "
        "has none: set model.drop_path: auto"
    )


def _replace_head(network: nn.Module, classes: int) -> None:
    name, head = head_of(network)
    network.set_submodule(name, nn.Linear(head.in_features, classes))


def timm_configuration(name: str) -> "PretrainedCfg":
    """What timm says of a network and its weights: input, normalisation, the place of the weights.

    Raises:
        UserError: timm has no weights of that name.
    """
    from timm.models import get_pretrained_cfg, list_pretrained

    architecture, _, tag = name.removeprefix(TIMM).partition(".")
    whole = f"{architecture}.{tag}" if tag else architecture
    known = list_pretrained(f"{architecture}.*")
    if tag and whole not in known:
        others = ", ".join(known) or "none"
        raise UserError(f"model.name: timm has no weights {name}; of this network: {others}")
    return cast("PretrainedCfg", get_pretrained_cfg(whole))


def count_parameters(name: str) -> int:
    """The parameters of a network with a thousand classes; nothing is allocated."""
    if not name.startswith(TIMM):
        from torchvision.models import get_model_weights

        return int(next(iter(get_model_weights(name))).meta["num_params"])
    from timm import create_model

    with torch.device("meta"):
        network = create_model(name.removeprefix(TIMM))
    return sum(values.numel() for values in network.parameters())


def own_input(name: str) -> dict[str, Any]:
    """The images that a published network is tested with, as ``Transform.with_input`` takes them.

    The names are those of section ``transform``: the side in pixels, the interpolation, and the
    share of the shorter side that the crop leaves.
    """
    if not name.startswith(TIMM):
        from torchvision.models import get_model_weights

        preset = get_model_weights(name).DEFAULT.transforms()
        (side,), (resized,) = preset.crop_size, preset.resize_size
        interpolation = preset.interpolation.value
        return {"image_size": side, "interpolation": interpolation, "crop": side / resized}
    configuration = timm_configuration(name)
    return {
        "image_size": configuration.input_size[1],
        "interpolation": configuration.interpolation,
        "crop": configuration.crop_pct,
    }


def _checked(network: nn.Module, name: str, image_shape: Sequence[int], classes: int) -> nn.Module:
    """The network, checked with two black images.

    Raises:
        UserError: it does not take such images, or does not give a row of logits for each.
    """
    height, width, channels = image_shape
    try:
        with torch.no_grad():
            output = network.eval()(torch.zeros(2, channels, height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _does_not_take(name, height, error) from None
    if not isinstance(output, Tensor) or output.shape != (2, classes):
        raise _does_not_take(name, height, "it gives no logits per class")
    return network.train()


def _does_not_take(name: str, side: int, reason: object) -> UserError:
    return UserError(
        f"model.name: {name} does not take images of {side} pixels "
        f"({str(reason).splitlines()[0]}); choose another network or transform.image_size"
    )


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """The first convolution of a network, with its name."""
    return _layers(network, nn.Conv2d)[0]


def _layers(network: nn.Module, kind: type[Layer]) -> list[tuple[str, Layer]]:
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, kind)]


def _for_channels(layer: nn.Conv2d, channels: int) -> nn.Conv2d:
    replacement = copy.deepcopy(layer)
    replacement.in_channels = channels
    replacement.weight = nn.Parameter(
        layer.weight.new_empty(layer.out_channels, channels, *layer.weight.shape[2:])
    )
    replacement.reset_parameters()
    return replacement


def cut_off_head(network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """Remove the last linear layer of a network in place; return both."""
    name, last = head_of(network)
    network.set_submodule(name, nn.Identity())
    return network, last


def head_of(network: nn.Module) -> tuple[str, nn.Linear]:
    """The last linear layer of a network, with its name; timm tells which one it is.

    Raises:
        UserError: the network has none, or several beside each other.
    """
    linear = _layers(network, nn.Linear)
    if configuration := getattr(network, "pretrained_cfg", None):
        linear = [layer for layer in linear if layer[0] == configuration.get("classifier")]
    if not linear:
        raise UserError("model.name: the network has no single linear layer as its head")
    return linear[-1]
