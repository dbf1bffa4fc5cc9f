"""What a classifier costs to keep and to use."""

from dataclasses import dataclass
from pathlib import Path

import torch

from imageclf.data.prepared import Images
from imageclf.network.classifier import WEIGHTS, Classifier


@dataclass(frozen=True)
class Cost:
    """Numbers that do not depend on the machine.

    Attributes:
        parameters: of the network.
        operations: additions and multiplications for an image, in convolutions and matrix products.
        size: of the file of weights, in bytes.
    """

    parameters: int
    operations: int
    size: int


@torch.no_grad()
def cost(classifier: Classifier, folder: Path, images: Images) -> Cost:
    """The cost of a classifier, which was loaded from the folder, for one of the images."""
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.from_numpy(images[:1].copy()).to(classifier.scale.device)
    with FlopCounterMode(display=False) as counter:
        classifier(image)
    return Cost(
        sum(parameter.numel() for parameter in classifier.parameters()),
        counter.get_total_flops(),
        (folder / WEIGHTS).stat().st_size,
    )
