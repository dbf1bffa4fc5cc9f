import pytest
import torch
from torch import nn

from helpers.params import make_params
from imageclf.files import UserError
from imageclf.network.architectures import ARCHITECTURES, Network, build_network
from imageclf.network_names import IMAGE_SIZES, nearest_networks, timm_names

LOSS = {"log_softmax": "nll", "logits": "cross_entropy", "softmax": "mse"}


def network(shape: tuple[int, ...] = (28, 28, 1), classes: int = 10, **changes: object) -> Network:
    settings = {"output": "logits"} | changes
    values = {f"model__{name}": value for name, value in settings.items()}
    side = {"transform__image_size": max(shape[0], 4)}
    return build_network(
        make_params(train__loss=LOSS[settings["output"]], **values, **side).model, shape, classes
    )


def parameters(part: nn.Module) -> int:
    return sum(values.numel() for values in part.parameters())


@pytest.mark.parametrize("name", ["mlp", "mlp_sequential"])
def test_the_mlp_of_part_4_has_the_parameters_its_docstring_says(name: str) -> None:
    assert parameters(network(name=name)) == 784 * 256 + 256 + 256 * 64 + 64 + 64 * 10 + 10
    assert parameters(network(name=name)) == 218_058


def test_by_hand_and_by_sequential_compute_the_same() -> None:
    by_hand, by_sequential = network(name="mlp"), network(name="mlp_sequential")
    pairs = zip(by_hand.parameters(), by_sequential.parameters(), strict=True)
    for ours, theirs in pairs:
        theirs.data.copy_(ours)
    images = torch.randn(4, 1, 28, 28)
    assert torch.equal(by_hand(images), by_sequential(images))


def test_the_mlp_computes_what_the_course_computes_by_hand() -> None:
    part_2 = network((3, 3, 1), 4, hidden=[5], activation="sigmoid", output="softmax")
    first, last = (part for part in part_2.modules() if isinstance(part, nn.Linear))
    images = torch.randn(2, 1, 3, 3)
    hidden = 1 / (1 + torch.exp(-(images.reshape(2, 9) @ first.weight.T + first.bias)))
    scores = torch.exp(hidden @ last.weight.T + last.bias)
    torch.testing.assert_close(part_2(images), scores / scores.sum(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("name", "at_minus_one"),
    [
        ("sigmoid", 0.26894),
        ("tanh", -0.76159),
        ("relu", 0.0),
        ("leaky_relu", -0.01),
        ("gelu", -0.15866),
        ("silu", -0.26894),
    ],
)
def test_activation_by_name_has_its_value(name: str, at_minus_one: float) -> None:
    mlp = network((2, 2, 1), 3, activation=name).backbone
    assert mlp.activation(torch.tensor(-1.0)).item() == pytest.approx(at_minus_one, abs=1e-5)


@pytest.mark.parametrize("name", ["mlp", "mlp_sequential", "cnn", "resnet"])
def test_dropout_switches_units_off_only_while_training(name: str) -> None:
    part = network(name=name, dropout=0.5, width=8)
    images = torch.randn(4, 1, 28, 28)
    assert not torch.equal(part(images), part(images))
    part.eval()
    assert torch.equal(part(images), part(images))


@pytest.mark.parametrize("shape", [(28, 28, 1), (96, 96, 3)])
@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("cnn", {"width": 32, "depth": 2}, 288_170),
        ("resnet", {"width": 16, "depth": 3}, 271_994),
    ],
)
def test_convolutional_nets_take_grey_and_colour_of_any_side(
    name: str, settings: dict, count: int, shape: tuple[int, ...]
) -> None:
    part = network(shape, name=name, **settings)
    channels = shape[2]
    assert parameters(part) == count + (channels - 1) * settings["width"] * 9
    assert part(torch.zeros(2, channels, *shape[:2])).shape == (2, 10)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
@pytest.mark.parametrize("stages", [1, 5])
def test_each_stage_has_twice_the_channels_and_half_the_side(name: str, stages: int) -> None:
    part = network((32, 32, 1), name=name, width=4, depth=1, stages=stages).eval()
    sides = []
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, __, output: sides.append(output.shape[1:3]))
    assert part(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert set(sides) == {(4 * 2**stage, 32 // 2**stage) for stage in range(stages)}


def test_a_residual_block_starts_from_its_shortcut() -> None:
    part = network(name="resnet", init="zeros", width=4, depth=2)
    assert not part(torch.randn(2, 1, 28, 28)).any()


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v3_small", "regnet_y_400mf"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_nets_get_our_classes_and_channels(name: str, channels: int) -> None:
    part = network((64, 64, channels), 7, name=name).eval()
    assert part(torch.zeros(1, channels, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "features"),
    [("test_efficientnet", 256), ("test_vit.r160_in1k", 64), ("test_convnext", 64)],
)
def test_timm_nets_get_our_classes_channels_and_size(
    name: str, features: int, channels: int
) -> None:
    part = network((64, 64, channels), 7, name=f"timm/{name}").eval()
    images = torch.zeros(1, channels, 64, 64)
    assert part.backbone(images).shape == (1, features)
    assert part(images).shape == (1, 7)


def test_a_timm_net_with_its_own_head_gives_what_timm_gives() -> None:
    import timm

    part = network((64, 64, 3), 1000, name="timm/test_resnet").eval()
    theirs = timm.create_model("test_resnet").eval()
    names = zip(theirs.state_dict(), part.state_dict(), strict=True)
    assert all(own.endswith(name.removeprefix("fc.")) for name, own in names)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), part.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(part(images), theirs(images))


@pytest.mark.parametrize("name", ["timm/test_efficientnet", "mobilenet_v3_small"])
def test_a_head_begins_as_torch_draws_a_linear_layer(name: str) -> None:
    """A head drawn wider, as timm draws EfficientNet's, took 30 points from flowers."""
    (head,) = network((64, 64, 3), 3, name=name).head
    assert isinstance(head, nn.Linear)
    assert head.weight.abs().max() <= head.in_features**-0.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deit_tiny_distilled_patch16_224", "no single linear layer as its head"),
        (
            "resnet18.a9_in1k",
            "timm has no weights timm/resnet18.a9_in1k; of this network: resnet18.a1_in1k, ",
        ),
        ("inception_v4", "inception_v4 does not take images of 64 pixels"),
    ],
)
def test_a_timm_net_that_cannot_be_cut_or_made_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        network((64, 64, 3), name=f"timm/{name}")


@pytest.mark.parametrize("output", LOSS)
def test_output_by_name(output: str) -> None:
    result = network(output=output)(torch.randn(3, 1, 28, 28))
    probabilities = {"log_softmax": result.exp(), "softmax": result, "logits": result}[output]
    sums_to_one = torch.allclose(probabilities.sum(dim=1), torch.ones(3))
    assert sums_to_one == (output != "logits")


def test_params_know_the_names_of_all_architectures() -> None:
    from torchvision import models

    assert set(IMAGE_SIZES) == {*ARCHITECTURES, *models.list_models(module=models)}


def test_params_know_the_names_of_all_of_timms_networks() -> None:
    import timm

    assert timm_names() == set(timm.list_models())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("tf_efficientnet_lite0", "timm/tf_efficientnet_lite0"),
        ("timm/convnext_tinny", "timm/convnext_tiny"),
        ("resnet19", "resnet18"),
    ],
)
def test_a_name_that_does_not_exist_gets_the_nearest(name: str, nearest: str) -> None:
    assert nearest in nearest_networks(name)
    assert len(nearest_networks(name)) == 3


def test_a_head_that_is_too_large_is_refused_before_it_is_made() -> None:
    with pytest.raises(UserError, match=r"the network would have 2,1.* parameters, more than"):
        network((32, 32, 3), name="regnet_y_400mf", head=[2**15] * 3)
