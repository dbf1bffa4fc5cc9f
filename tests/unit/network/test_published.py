import re

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.ops import StochasticDepth

from helpers.params import make_params
from imageclf.files import UserError
from imageclf.network.architectures import Network, build_network
from imageclf.network.published import WITH_AUXILIARIES
from imageclf.network_names import DROP_PATH, TORCHVISION

SIDE = 32
RATES = {StochasticDepth: "p", DropPath: "drop_prob"}


def network(name: str, drop_path: object) -> Network:
    torch.manual_seed(0)
    changes = {"model__drop_path": drop_path, "transform__image_size": SIDE}
    return build_network(make_params(model__name=name, **changes).model, (SIDE, SIDE, 3), 4)


def rates(part: nn.Module) -> list[float]:
    """The rate of each block that may be skipped."""
    kinds = tuple(RATES)
    blocks = [layer for layer in part.modules() if isinstance(layer, kinds)]
    return [getattr(block, RATES[type(block)]) for block in blocks]


@pytest.mark.parametrize("name", ["timm/test_convnext", "timm/test_vit", "efficientnet_b0"])
def test_blocks_are_skipped_at_random_only_while_training(name: str) -> None:
    part, images = network(name, 0.5), torch.randn(8, 3, SIDE, SIDE)
    for layer in part.modules():
        if isinstance(layer, nn.Dropout):  # so that nothing else is random
            layer.eval()
    part.head.eval()

    def outputs() -> list[Tensor]:
        with torch.no_grad():
            return [part(images) for _ in range(2)]

    first, second = outputs()
    assert not torch.equal(first, second)
    part.eval()
    first, second = outputs()
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["timm/test_convnext", "efficientnet_b0"])
def test_the_share_of_images_that_skip_a_block_is_its_rate(name: str) -> None:
    part, images, skipped = network(name, 0.4), 400, []

    def count(layer: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        share = (result.flatten(1) == 0).all(dim=1).double().mean().item()
        skipped.append((share, getattr(layer, RATES[type(layer)])))

    for layer in part.modules():
        if isinstance(layer, tuple(RATES)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        part(torch.randn(images, 3, SIDE, SIDE))
    assert len(skipped) > 3
    for share, rate in skipped:
        assert share == pytest.approx(rate, abs=4 * (0.25 / images) ** 0.5), rate
    assert max(share for share, _ in skipped) > 0.3


def theirs(name: str, rate: float) -> nn.Module:
    """A network as its publisher makes it at a rate."""
    if name.startswith("timm/"):
        import timm

        return timm.create_model(name.removeprefix("timm/"), drop_path_rate=rate)
    if name == "swin_t":  # whose own function sets the rate
        sizes = {"patch_size": [4, 4], "window_size": [7, 7], "embed_dim": 96}
        depths = {"depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}
        return SwinTransformer(**sizes, **depths, stochastic_depth_prob=rate)
    return get_model(name, stochastic_depth_prob=rate)


@pytest.mark.parametrize(
    "name", ["convnext_tiny", "swin_t", "timm/test_convnext", "timm/tf_efficientnet_lite0"]
)
def test_the_rates_are_those_of_the_publisher(name: str) -> None:
    with torch.device("meta"):
        ours = rates(network(name, 0.3))
        assert ours == pytest.approx(rates(theirs(name, 0.3)))
    assert max(ours) == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize(
    ("name", "own"), [("swin_t", 0.2), ("timm/swin_tiny_patch4_window7_224", 0.1)]
)
def test_auto_is_the_networks_own_rate_and_zero_is_none(name: str, own: float) -> None:
    with torch.device("meta"):
        assert max(rates(network(name, "auto"))) == pytest.approx(own)
        assert not any(rates(network(name, 0.0)))
        assert not rates(network("timm/test_convnext", "auto"))


@pytest.mark.parametrize("name", ["timm/vgg11", "timm/mobilenetv1_100", "timm/test_efficientnet"])
def test_a_network_of_timm_without_blocks_to_skip_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"model.drop_path: 0.2 is for .* and {name} has none: set"):
        network(name, 0.2)


def test_params_know_which_networks_of_torchvision_skip_blocks() -> None:
    smallest = """alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 maxvit_t
    mnasnet0_5 mobilenet_v3_small regnet_x_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5
    squeezenet1_1 swin_t vgg11 vit_b_32 wide_resnet50_2""".split()  # noqa: SIM905
    families = {re.match("[a-z]+", name)[0]: name for name in smallest}
    assert families.keys() == {re.match("[a-z]+", name)[0] for name in TORCHVISION}
    for name in smallest:
        settings = {"init_weights": False} if name in WITH_AUXILIARIES else {}
        # A regnet cannot be made without its values.
        with torch.device("cpu" if name.startswith("regnet") else "meta"):
            assert bool(rates(get_model(name, **settings))) == name.startswith(DROP_PATH), name
