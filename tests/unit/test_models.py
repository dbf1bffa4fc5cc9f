import pytest
import torch

from imageclf.models import build_network
from support import make_params


def parameters(network: torch.nn.Module) -> int:
    return sum(values.numel() for values in network.parameters())


def test_the_mlp_of_part_4_has_the_layers_its_docstring_says() -> None:
    network = build_network(make_params().model, (28, 28), 10)
    assert parameters(network) == 784 * 256 + 256 + 256 * 64 + 64 + 64 * 10 + 10 == 218_058
    assert [type(layer).__name__ for layer in network] == [
        *("Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear", "LogSoftmax")
    ]


def test_the_mlp_computes_what_the_course_computes_by_hand() -> None:
    model = make_params(model__hidden=[5], model__activation="sigmoid").model
    network = build_network(model, (3, 3), 4)
    first, last = network[1], network[3]
    images = torch.randn(2, 1, 3, 3)
    hidden = 1 / (1 + torch.exp(-(images.reshape(2, 9) @ first.weight.T + first.bias)))
    scores = torch.exp(hidden @ last.weight.T + last.bias)
    expected = scores / scores.sum(dim=1, keepdim=True)
    torch.testing.assert_close(network(images).exp(), expected)


@pytest.mark.parametrize(
    ("name", "layer"), [("sigmoid", "Sigmoid"), ("tanh", "Tanh"), ("relu", "ReLU")]
)
def test_activation_by_name(name: str, layer: str) -> None:
    network = build_network(make_params(model__activation=name).model, (28, 28), 10)
    assert [type(part).__name__ for part in network].count(layer) == 2


def test_dropout_switches_units_off_only_while_training() -> None:
    network = build_network(make_params(model__dropout=0.5).model, (28, 28), 10)
    images = torch.randn(4, 1, 28, 28)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("shape", [(28, 28), (64, 64, 3)])
def test_the_cnn_takes_grey_and_colour_of_any_side(shape: tuple[int, ...]) -> None:
    network = build_network(make_params(model__name="cnn").model, shape, 10)
    channels = shape[2] if len(shape) == 3 else 1
    assert parameters(network) == 288_170 + (channels - 1) * 32 * 9
    assert network(torch.zeros(2, channels, *shape[:2])).shape == (2, 10)


@pytest.mark.parametrize("output", ["log_softmax", "logits"])
def test_output_by_name(output: str) -> None:
    loss = {"log_softmax": "nll", "logits": "cross_entropy"}[output]
    model = make_params(model__output=output, train__loss=loss).model
    result = build_network(model, (28, 28), 10)(torch.randn(3, 1, 28, 28))
    sums_to_one = torch.allclose(result.exp().sum(dim=1), torch.ones(3))
    assert sums_to_one == (output == "log_softmax")
