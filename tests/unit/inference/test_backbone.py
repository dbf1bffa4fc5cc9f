from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.params import make_params
from imageclf.inference import backbone as module
from imageclf.inference.backbone import features_in_bf16, features_of, write_backbone
from imageclf.network.classifier import Classifier, build_classifier
from imageclf.project.folder import NO_BACKBONE

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
def test_onnx_runtime_gives_torchs_features_at_any_batch(name: str, tmp_path: Path) -> None:
    told: list[str] = []
    network = classifier(name)
    write_backbone(network, SHAPE, tmp_path / "backbone.onnx", told.append)
    features = features_of(network, tmp_path / "backbone.onnx", told.append)
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


def test_the_file_depends_on_the_weights_alone(tmp_path: Path) -> None:
    written = []
    for folder, threads in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        torch.set_num_threads(threads)
        path = tmp_path / folder / "backbone.onnx"
        write_backbone(classifier(NAMES[0]), SHAPE, path, print)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert str(Path(module.__file__).parent).encode() not in written[0]


def test_a_file_that_does_not_agree_is_not_used(tmp_path: Path) -> None:
    told: list[str] = []
    write_backbone(classifier(NAMES[0], seed=1), SHAPE, tmp_path / "backbone.onnx", told.append)
    network = classifier(NAMES[0])
    features = features_of(network, tmp_path / "backbone.onnx", told.append)
    with torch.no_grad():
        assert torch.equal(features(images(3)), network.features(images(3)))
    (line,) = told
    assert line.startswith("torch computes the features: ONNX's are ")


class Unknown(torch.nn.Module):
    """An operation that ONNX does not have."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.linalg.svdvals(pixels).flatten(1)


def test_what_cannot_be_exported_is_computed_by_torch(tmp_path: Path) -> None:
    told: list[str] = []
    network = classifier(NAMES[0])
    network.network.backbone = Unknown()
    write_backbone(network, SHAPE, tmp_path / "backbone.onnx", told.append)
    assert (tmp_path / "backbone.onnx").read_bytes() == NO_BACKBONE
    assert told[0].startswith("torch computes the features: no ONNX file can be made (")
    features = features_of(network, tmp_path / "backbone.onnx", told.append)
    assert features(images(2)).shape == (2, 192)
