import pytest
from click.testing import CliRunner

from imageclf.cli import main
from imageclf.network_names import TORCHVISION


def listed(*arguments: str) -> list[str]:
    done = CliRunner().invoke(main, ["models", *arguments])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_a_network_has_its_parameters_and_the_place_of_its_weights() -> None:
    rows = [" ".join(line.split()) for line in listed("*resnet18*")]
    assert "resnet18 11,689,512 published by download.pytorch.org" in rows
    assert "timm/resnet18.a1_in1k 11,689,512 published by github.com" in rows


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite0 4,652,008 installed"),
        ("convnext_atto.d2_in1k", "timm/convnext_atto.d2_in1k 3,695,520 published by github.com"),
        (
            "timm/test_resnet.",
            "timm/test_resnet.r160_in1k 469,688 published, but without a digest",
        ),
        ("seresnet101", "timm/seresnet101 49,326,872 none"),
    ],
)
def test_what_is_at_hand_is_told(name: str, row: str) -> None:
    assert row in [" ".join(line.split()) for line in listed(name)]


def test_without_a_pattern_all_of_torchvisions_are_listed() -> None:
    rows = [" ".join(line.split()) for line in listed()]
    assert "regnet_y_400mf 4,344,144 published by download.pytorch.org" in rows
    assert len(rows) > len(TORCHVISION)


def test_a_pattern_that_fits_none_gets_the_nearest() -> None:
    done = CliRunner().invoke(main, ["models", "timm/convnxt_tiny"])
    assert done.exit_code == 2
    assert "error: no network has timm/convnxt_tiny in its name" in done.output
    assert "timm/convnext_tiny" in done.output
