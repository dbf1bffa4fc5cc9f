"""Architectures by name: each a short function from parameters to a network.

A network takes normalised images (float32, N x C x H x W) and gives one row of logits or
log-probabilities per image (float32, N x classes), as ``model.output`` says.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from imageclf.params import Model

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}


def build_network(model: Model, image_shape: Sequence[int], classes: int) -> nn.Module:
    """The network that ``model`` describes, with fresh weights from torch's generator.

    Args:
        model: the section of the parameters.
        image_shape: (H, W) of grey images or (H, W, C).
        classes: the number of outputs.
    """
    layers = {"mlp": mlp, "cnn": cnn}[model.name](model, image_shape, classes)
    if model.output == "log_softmax":
        layers.append(nn.LogSoftmax(dim=1))
    return layers


def mlp(model: Model, image_shape: Sequence[int], classes: int) -> nn.Sequential:
    """Fully connected layers over the flattened image, as in the course's Parts 2 to 5.

    784-256-64-10 has 218,058 parameters: 784*256 + 256, 256*64 + 64, 64*10 + 10.
    """
    pixels = 1
    for side in image_shape:
        pixels *= side
    layers: list[nn.Module] = [nn.Flatten()]
    widths = [pixels, *model.hidden]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), ACTIVATIONS[model.activation]()]
        if model.dropout:
            layers.append(nn.Dropout(model.dropout))
    layers.append(nn.Linear(widths[-1], classes))
    return nn.Sequential(*layers)


def cnn(model: Model, image_shape: Sequence[int], classes: int) -> nn.Sequential:
    """Three stages of two 3x3 convolutions with batch norm, halving the side between them.

    32, 64 and 128 channels, then the mean over what is left of the image and one linear layer:
    288,170 parameters for grey images and ten classes, whatever their side from 28 to 64 pixels.
    """
    channels = image_shape[2] if len(image_shape) == 3 else 1
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([channels, 32, 64, 128]):
        for first in (inputs, outputs):
            layers += [
                nn.Conv2d(first, outputs, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                ACTIVATIONS[model.activation](),
            ]
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if model.dropout:
        layers.append(nn.Dropout(model.dropout))
    layers.append(nn.Linear(128, classes))
    return nn.Sequential(*layers)
