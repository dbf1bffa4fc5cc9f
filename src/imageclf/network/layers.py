"""The layers of a backbone, in the order from the image to the features."""

from collections.abc import Iterator

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def layers_in_order(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of each layer; together they are those of the backbone.

    A network of timm says itself which parameters make a layer. For another one, a layer is a block
    (such as a residual block) in a sequence of blocks, or a convolution or linear layer beside
    them. Normalisation layers and loose parameters belong to the layer before.
    """
    if callable(matcher := getattr(backbone, "group_matcher", None)):
        from timm.models import group_parameters

        by_number = group_parameters(backbone, matcher(coarse=False), return_values=True)
        return list(by_number.values())
    layers: list[list[nn.Parameter]] = []
    for block in _blocks(backbone, _count(backbone) / 2):
        begins = isinstance(block, nn.Module) and any(each.ndim > 1 for each in block.parameters())
        if begins or not layers:
            layers.append([])
        layers[-1] += block.parameters() if isinstance(block, nn.Module) else [block]
    return layers


def _blocks(module: nn.Module, half: float) -> Iterator[nn.Module | nn.Parameter]:
    """The blocks in a module in order, and the parameters that are its own.

    ``half`` of the network's parameters and more are in no block, but in a wrapper around blocks.
    """
    yield from module.parameters(recurse=False)
    for child in module.children():
        wraps = _count(child) > half and any(
            isinstance(inner, CONTAINERS) and _count(inner) > _count(child) / 2
            for inner in child.children()
        )
        if isinstance(child, CONTAINERS) or wraps:
            yield from _blocks(child, half)
        elif _count(child):
            yield child


def _count(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())
