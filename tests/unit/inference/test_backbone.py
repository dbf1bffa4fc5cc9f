import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.params import make_params
from imageclf.inference.backbone import features_in_bf16, features_of
from imageclf.network.classifier import Classifier, build_classifier

SHAPE = (64, 64, 3)
STATS = {"mean": [0.4] * 3, "std": [0.2] * 3}
NAMES = ["timm/test_efficientnet", "timm/test_vit", "timm/test_convnext", "shufflenet_v2_x0_5"]


def classifier(name: str, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    model = make_params(model__name=name, transform__image_size=64).model
    return build_classifier(model, STATS, SHAPE, 2).eval()


def images(count: int) -> Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *SHAPE)).astype(np.uint8)
    return torch.from_numpy(pixels)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_runtime_gives_torchs_features_at_any_batch(name: str) -> None:
    told: list[str] = []
    network = classifier(name)
    features = features_of(network, SHAPE, told.append)
    for count in (11, 1, 3):
        with torch.no_grad():
            expected = network.features(images(count))
        torch.testing.assert_close(features(images(count)), expected, atol=1e-4, rtol=1e-4)
    (line,) = told
    assert line.startswith("ONNX Runtime computes the features")


@pytest.mark.parametrize("name", NAMES)
def test_bf16_gives_nearly_the_same_features(name: str) -> None:
    network = classifier(name)
    with torch.no_grad():
        exact = network.features(images(4))
    rounded = features_in_bf16(network)(images(4))
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    # bf16 has 8 bits of precision, and the error grows from layer to layer.
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_threads_give_the_same_bytes() -> None:
    given = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        given.append(features_of(classifier(NAMES[0]), SHAPE, print)(images(11)))
    assert torch.equal(*given)


def test_an_export_that_does_not_agree_is_not_used() -> None:
    told: list[str] = []
    network = classifier(NAMES[0], seed=1)
    features = features_of(network, SHAPE, told.append)
    network.load_state_dict(classifier(NAMES[0]).state_dict())
    with torch.no_grad():
        assert torch.equal(features(images(3)), network.features(images(3)))
    (line,) = told
    assert line.startswith("torch computes the features: ONNX's are ")


class Unknown(torch.nn.Module):
    """An operation that ONNX does not have."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.linalg.svdvals(pixels).flatten(1)


def test_what_cannot_be_exported_is_computed_by_torch() -> None:
    told: list[str] = []
    network = classifier(NAMES[0])
    network.network.backbone = Unknown()
    features = features_of(network, SHAPE, told.append)
    assert features(images(2)).shape == (2, 192)
    (line,) = told
    assert line.startswith("torch computes the features: the network has no ONNX form (")
