"""The names of the networks, and the image sides that each one takes."""

import difflib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# Before the name of one of timm's networks, which may have the name of its weights behind it:
# timm/resnet18, timm/resnet18.a1_in1k.
TIMM = "timm/"

# torchvision's names, written out because its import takes seconds.
TORCHVISION = """
alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161
densenet169 densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3
efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l efficientnet_v2_m
efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3
mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf regnet_x_32gf
regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf
regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101
resnet152 resnet18 resnet34 resnet50 resnext101_32x8d resnext101_64x4d resnext50_32x4d
shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0 squeezenet1_0
squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11 vgg11_bn vgg13 vgg13_bn vgg16
vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2
wide_resnet50_2
""".split()  # noqa: SIM905 - a line per name would fill two screens
# How the names of those of torchvision begin that skip blocks at random (stochastic depth).
DROP_PATH = ("convnext", "efficientnet", "maxvit", "swin")
PHOTOGRAPHS = range(32, 513)  # pixels
# The sides of images, in pixels, that each architecture is made for.
IMAGE_SIZES = {
    "mlp": range(1, 513),
    "mlp_sequential": range(1, 513),
    "cnn": range(28, 129),
    "resnet": range(28, 129),
    **dict.fromkeys(TORCHVISION, PHOTOGRAPHS),
}
NEAREST = 3  # names to tell where there is none like the one given


@cache
def timm_names() -> frozenset[str]:
    """The names of timm's networks, read from its source because its import takes seconds."""
    package = find_spec("timm")
    folders = package.submodule_search_locations if package else None
    return frozenset(
        name
        for folder in folders or ()
        for path in Path(folder, "models").glob("*.py")
        for name in re.findall(r"^@register_model\s+def (\w+)\(", path.read_text(), re.MULTILINE)
    )


def is_network(name: str) -> bool:
    """Whether there is an architecture of that name."""
    if name.startswith(TIMM):
        return name.removeprefix(TIMM).partition(".")[0] in timm_names()
    return name in IMAGE_SIZES


def is_published(name: str) -> bool:
    """Whether it is a network of torchvision or timm."""
    return name in TORCHVISION or name.startswith(TIMM)


def nearest_networks(name: str) -> list[str]:
    """The names most like one that does not exist, the nearest first."""
    known = [*IMAGE_SIZES, *(TIMM + other for other in sorted(timm_names()))]
    return difflib.get_close_matches(name, known, n=NEAREST) or difflib.get_close_matches(
        name, known, n=1, cutoff=0
    )


def image_sides(name: str) -> range:
    """The sides of images, in pixels, that an architecture is made for."""
    return IMAGE_SIZES.get(name, PHOTOGRAPHS)
