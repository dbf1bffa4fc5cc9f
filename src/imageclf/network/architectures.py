"""Architectures by name: each a short function from parameters to a network.

A network takes normalised images (float32, N x C x H x W) and gives one row per image (float32,
N x classes): logits, log-probabilities or probabilities, as ``model.output`` says.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from imageclf.files import UserError
from imageclf.network.initialization import initialize
from imageclf.network.published import cut_off_head, timm_network, torchvision_network
from imageclf.network_names import TIMM, TORCHVISION
from imageclf.params import Model

# Four bytes each, and four times that while they are trained with Adam. The largest network of
# torchvision has 645 million (regnet_y_128gf).
MAX_PARAMETERS = 10**9

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
OUTPUTS: dict[str, type[nn.Module]] = {"log_softmax": nn.LogSoftmax, "softmax": nn.Softmax}


class Network(nn.Module):
    """A network in two parts; the first may come from another training.

    Attributes:
        backbone: from images (float32, N x C x H x W) to features (float32, N x F).
        head: from features to the output.
    """

    def __init__(self, backbone: nn.Module, head: nn.Sequential) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self._frozen = False

    def forward(self, images: Tensor) -> Tensor:
        """The output (float32, N x classes) of images (float32, N x C x H x W)."""
        result: Tensor = self.head(self.backbone(images))
        return result

    def freeze(self, frozen: bool) -> None:
        """Freeze the backbone, or release it.

        A frozen backbone stays in eval mode while the head trains: its batch norm keeps its means,
        and its dropout is off.
        """
        self._frozen = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but leave a frozen backbone in eval mode."""
        super().train(mode)
        self.backbone.train(mode and not self._frozen)
        return self


def build_network(model: Model, image_shape: Sequence[int], classes: int) -> Network:
    """The network that ``model`` describes, for images of (H, W, C), with random weights.

    Its head is its last linear layer; ``model.head`` replaces it by hidden layers and a new one.

    Raises:
        UserError: it has more parameters than ``MAX_PARAMETERS``, or does not take such images.
    """
    _check_size(model, image_shape, classes)
    network = _assembled(model, image_shape, classes)
    initialize(network, model)
    return network


def _check_size(model: Model, image_shape: Sequence[int], classes: int) -> None:
    """Check the number of parameters; of torchvision's networks, those of ``model.head`` alone.

    torchvision's own are few enough, and its regnets cannot be made without their values.
    """
    network: nn.Module
    with torch.device("meta"):  # only shapes: nothing is allocated or drawn
        if model.name in TORCHVISION:
            network = nn.Sequential(*linear_layers([1, *model.head, classes], model))
        else:
            network = _assembled(model, image_shape, classes)
    parameters = sum(values.numel() for values in network.parameters())
    if parameters > MAX_PARAMETERS:
        raise UserError(
            f"the network would have {parameters:,} parameters, more than {MAX_PARAMETERS:,}: "
            "choose a smaller model.hidden, head, width, depth or stages"
        )


def _assembled(model: Model, image_shape: Sequence[int], classes: int) -> Network:
    published = timm_network if model.name.startswith(TIMM) else torchvision_network
    build = ARCHITECTURES.get(model.name, published)
    backbone, last = cut_off_head(build(model, image_shape, classes))
    head: list[nn.Module] = [last]
    if model.head:
        head = linear_layers([last.in_features, *model.head, classes], model)
    if model.output != "logits":
        head.append(OUTPUTS[model.output](dim=1))
    return Network(backbone, nn.Sequential(*head))


def linear_layers(widths: Sequence[int], model: Model) -> list[nn.Module]:
    """A linear layer per pair of consecutive widths; activation and dropout between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs), ACTIVATIONS[model.activation]()]
        if model.dropout:
            layers.append(nn.Dropout(model.dropout))
    return [*layers, nn.Linear(widths[-2], widths[-1])]


class MLP(nn.Module):
    """A fully connected network written by hand, as in the course's Part 2."""

    def __init__(self, widths: Sequence[int], activation: nn.Module, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation, self.dropout = activation, dropout

    def forward(self, images: Tensor) -> Tensor:
        """Logits (float32, N x classes) of images (float32, N x C x H x W)."""
        hidden = images.flatten(start_dim=1)
        *inner, last = self.layers
        for layer in inner:
            hidden = self.activation(layer(hidden))
            if self.dropout:
                hidden = functional.dropout(hidden, self.dropout, self.training)
        logits: Tensor = last(hidden)
        return logits


def mlp(model: Model, image_shape: Sequence[int], classes: int) -> nn.Module:
    """Fully connected layers over the flattened image, as in the course's Parts 2 to 5.

    784-256-64-10 has 218,058 parameters: 784*256 + 256, 256*64 + 64, 64*10 + 10.
    """
    widths = [math.prod(image_shape), *model.hidden, classes]
    return MLP(widths, ACTIVATIONS[model.activation](), model.dropout)


def mlp_sequential(model: Model, image_shape: Sequence[int], classes: int) -> nn.Module:
    """The same network as ``mlp``, by nn.Sequential, as in the course's Part 3."""
    widths = [math.prod(image_shape), *model.hidden, classes]
    return nn.Sequential(nn.Flatten(), *linear_layers(widths, model))


def stage_widths(model: Model) -> list[int]:
    """The channels of each stage of a convolutional network; each stage doubles them."""
    return [model.width * 2**stage for stage in range(model.stages)]


class GlobalMaxPool(nn.Module):
    """The largest value of each channel; unlike nn.AdaptiveMaxPool2d, deterministic on GPUs."""

    def forward(self, images: Tensor) -> Tensor:
        """Features (float32, N x C) of N x C x H x W."""
        return images.amax(dim=(2, 3))


def cnn(model: Model, image_shape: Sequence[int], classes: int) -> nn.Module:
    """Stages of 3x3 convolutions with batch norm; each next stage has half the side.

    A stage has ``depth`` convolutions. The largest value of each channel goes into one linear
    layer, so images may have any side. Width 32, depth 2 and three stages on grey images: 288,170
    parameters for ten classes.
    """
    layers: list[nn.Module] = []
    inputs = image_shape[2]
    for outputs in stage_widths(model):
        for _ in range(model.depth):
            layers += [
                nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                ACTIVATIONS[model.activation](),
            ]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    layers[-1] = GlobalMaxPool()
    return nn.Sequential(*layers, nn.Dropout(model.dropout), nn.Linear(inputs, classes))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (https://arxiv.org/abs/1603.05027, pre-activation)."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (float32, N x outputs x H/stride x W/stride)."""
        hidden = self.activation(self.norm1(images))
        shortcut = images if self.shortcut is None else self.shortcut(hidden)
        residual = self.conv2(self.activation(self.norm2(self.conv1(hidden))))
        result: Tensor = shortcut + residual
        return result


def resnet(model: Model, image_shape: Sequence[int], classes: int) -> nn.Module:
    """A residual network of the CIFAR kind: 2 * depth layers per stage, and 2 more.

    The first stage has the full side of the images, each next stage half the side before. Three
    stages of width 16 are the ResNet of https://arxiv.org/abs/1512.03385 section 4.2; wider ones
    are Wide ResNets (https://arxiv.org/abs/1605.07146), with dropout only before the last layer.
    Width 16 and depth 3 on grey images: 271,994 parameters for ten classes.
    """
    activation = ACTIVATIONS[model.activation]
    inputs = model.width
    layers: list[nn.Module] = [nn.Conv2d(image_shape[2], inputs, 3, padding=1, bias=False)]
    for stage, outputs in enumerate(stage_widths(model)):
        for block in range(model.depth):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(ResidualBlock(inputs, outputs, stride, activation()))
            inputs = outputs
    return nn.Sequential(
        *layers,
        nn.BatchNorm2d(inputs),
        activation(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(model.dropout),
        nn.Linear(inputs, classes),
    )


ARCHITECTURES: dict[str, Callable[[Model, Sequence[int], int], nn.Module]] = {
    "mlp": mlp,
    "mlp_sequential": mlp_sequential,
    "cnn": cnn,
    "resnet": resnet,
}
