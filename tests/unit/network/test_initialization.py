import math

import pytest
import torch
from torch import nn

from helpers.params import make_params
from imageclf.network.initialization import INITIALIZERS, initialize

INPUTS, OUTPUTS = 400, 300


def drawn(name: str, std: float = 0.05) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(INPUTS, OUTPUTS)
    initialize(layer, make_params(model__init=name, model__init_std=std).model)
    return layer


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("normal", 0.05),
        ("uniform", 0.05),
        ("xavier_uniform", math.sqrt(2 / (INPUTS + OUTPUTS))),
        ("xavier_normal", math.sqrt(2 / (INPUTS + OUTPUTS))),
        ("kaiming_uniform", math.sqrt(2 / INPUTS)),
        ("kaiming_normal", math.sqrt(2 / INPUTS)),
        ("orthogonal", math.sqrt(1 / INPUTS)),
        ("zeros", 0.0),
    ],
)
def test_weights_have_the_standard_deviation_of_the_paper(name: str, std: float) -> None:
    weight = drawn(name).weight
    assert weight.std().item() == pytest.approx(std, rel=0.03)
    assert weight.mean().item() == pytest.approx(0, abs=0.02 * std + 1e-9)
    # Of uniform draws the largest lies at sqrt(3) standard deviations, of normal ones far beyond.
    if name.endswith("uniform"):
        assert weight.abs().max().item() <= math.sqrt(3) * std * 1.01
    if name.endswith("normal"):
        assert weight.abs().max().item() > 3.5 * std


def test_orthogonal_rows_are_orthogonal() -> None:
    weight = drawn("orthogonal").weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(OUTPUTS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_biases_become_zero(name: str) -> None:
    assert not drawn(name).bias.any()


def test_default_keeps_what_torch_drew() -> None:
    torch.manual_seed(0)
    assert torch.equal(nn.Linear(INPUTS, OUTPUTS).weight, drawn("default").weight)
