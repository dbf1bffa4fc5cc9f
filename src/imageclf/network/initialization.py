"""Initial weights by name. They decide whether a deep network learns at all."""

from collections.abc import Callable

from torch import Tensor, nn

from imageclf.params import Model

# Each fills a weight of two or more dimensions in place.
INITIALIZERS: dict[str, Callable[[Tensor, Model], Tensor]] = {
    "normal": lambda weight, model: nn.init.normal_(weight, std=model.init_std),
    "uniform": lambda weight, model: nn.init.uniform_(
        weight, -model.init_std * 3**0.5, model.init_std * 3**0.5
    ),
    "xavier_uniform": lambda weight, _: nn.init.xavier_uniform_(weight),
    "xavier_normal": lambda weight, _: nn.init.xavier_normal_(weight),
    "kaiming_uniform": lambda weight, _: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "kaiming_normal": lambda weight, _: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "orthogonal": lambda weight, _: nn.init.orthogonal_(weight),
    "zeros": lambda weight, _: nn.init.zeros_(weight),
}


def initialize(network: nn.Module, model: Model) -> None:
    """Draw the weights of every linear and convolutional layer anew; biases become 0.

    ``normal`` and ``uniform`` have the standard deviation ``model.init_std``; xavier is
    http://proceedings.mlr.press/v9/glorot10a.html, kaiming https://arxiv.org/abs/1502.01852,
    orthogonal https://arxiv.org/abs/1312.6120. ``default`` keeps what torch drew.
    """
    if model.init == "default":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            INITIALIZERS[model.init](layer.weight, model)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
