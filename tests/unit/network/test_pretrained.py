from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from helpers.params import make_params
from imageclf.files import UserError
from imageclf.network.classifier import Classifier, build_classifier
from imageclf.network.pretrained import (
    Pretrained,
    architecture,
    begin_classifier,
    load_weights,
    read_pretrained,
    write_pretrained,
)
from imageclf.params import Params

STATS = {"mean": [0.3], "std": [0.2]}
LEARNT = {"mean": [0.4], "std": [0.1]}


def begun(params: Params, folder: Path, shape: tuple[int, ...] = (28, 28, 1)) -> Classifier:
    return begin_classifier(params.model, STATS, folder, shape, classes=4)


def cnn(**changes: Any) -> Params:
    return make_params(model__name="cnn", model__width=4, model__weights="a/path", **changes)


@pytest.fixture
def backbone(tmp_path: Path) -> nn.Module:
    """The backbone of a cnn for grey images, and its weights in ``tmp_path``."""
    model = cnn().model
    torch.manual_seed(5)
    network = build_classifier(model, STATS, (28, 28, 1), 7).network
    pretrained = Pretrained(
        architecture=architecture(model.model_dump()),
        channels=1,
        origin={"title": "a test", "sha256": "0" * 64},
        **LEARNT,
    )
    write_pretrained(tmp_path, pretrained, network.backbone.state_dict())
    return network.backbone


def test_without_weights_everything_is_drawn_as_ever(tmp_path: Path) -> None:
    write_pretrained(tmp_path, None, {})
    assert read_pretrained(tmp_path) is None
    model = make_params().model
    torch.manual_seed(1)
    expected = build_classifier(model, STATS, (28, 28, 1), 4)
    torch.manual_seed(1)
    found = begun(make_params(), tmp_path)
    for ours, theirs in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(found.scale, expected.scale)


def test_a_classifier_begins_with_the_backbone_and_its_normalisation(
    tmp_path: Path, backbone: nn.Module
) -> None:
    found = begun(cnn(model__head=[6]), tmp_path)
    images = torch.randint(0, 256, (3, 28, 28, 1), dtype=torch.uint8)
    expected = backbone.eval()(((images / 255 - 0.4) / 0.1).permute(0, 3, 1, 2))
    torch.testing.assert_close(found.eval().features(images), expected)
    widths = [layer.weight.shape for layer in found.network.head if isinstance(layer, nn.Linear)]
    assert widths == [(6, 16), (4, 6)]
    assert isinstance(found.network.head[-1], nn.LogSoftmax)
    assert torch.equal(found(images), found.network.head(found.features(images)))


def test_equal_weights_give_equal_bytes(tmp_path: Path, backbone: nn.Module) -> None:
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    pretrained = read_pretrained(tmp_path)
    write_pretrained(tmp_path, pretrained, dict(reversed(backbone.state_dict().items())))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("backbone")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__width": 8}, "model.width is 8, but model.weights are .* with 4: set model.width"),
        ({"model__name": "resnet"}, "model.name is resnet, but .* a network with cnn"),
        ({"model__activation": "tanh"}, "model.activation is tanh, but"),
        ({"model__stages": 4}, "model.stages is 4, but .* with 3: set model.stages: 3"),
    ],
)
def test_parameters_of_another_network_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    settings = {"model__name": "cnn", "model__width": 4, "model__weights": "a/path"}
    with pytest.raises(UserError, match=message):
        begun(make_params(**settings | changes), tmp_path)


@pytest.mark.usefixtures("backbone")
def test_images_of_other_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="take images of 1 channels, but these have 3: set tran"):
        begun(cnn(), tmp_path, (28, 28, 3))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"0.weight": (2, 3)}, "of another network: it has no 0.bias"),
        ({}, "it has no 0.bias and 1 others"),
        ({"0.weight": (2, 3), "0.bias": (2,), "1.bias": (2,)}, "the network has no 1.bias"),
        ({"0.weight": (2, 4), "0.bias": (2,)}, "0.weight is 2 x 4 there, and 2 x 3 in the network"),
    ],
)
def test_weights_of_another_network_are_named(
    weights: dict[str, tuple[int, ...]], message: str
) -> None:
    state = {name: torch.zeros(shape) for name, shape in weights.items()}
    with pytest.raises(UserError, match=message):
        load_weights(nn.Sequential(nn.Linear(3, 2)), state)
