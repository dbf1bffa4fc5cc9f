"""The sources of pretrained weights, and their conversion to the backbone of a network.

``model.weights`` names torchvision's ImageNet weights, a file with a state dict for one of
torchvision's networks, or our own classifier, in a folder or in MLflow. Only tensors are unpickled.
"""

import re
import shutil
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console

from imageclf.data.shapes import shape_in_memory
from imageclf.files import UserError, atomic_folder, sha256_file
from imageclf.network.pretrained import (
    ARCHITECTURE,
    Pretrained,
    architecture,
    load_weights,
    read_state_dict,
    write_pretrained,
)
from imageclf.params import Model
from imageclf.sources.catalog import (
    DOWNLOADS,
    DataSet,
    RawFile,
    fetch_address,
    fetch_files,
    in_project,
)

if TYPE_CHECKING:
    from torch import Tensor

PARAMETER = "model.weights"
Download = Callable[[str, Path], Path]
WORK = DOWNLOADS / "weights"
SIDE = 224  # pixels, of the images that torchvision's networks are made for
MEGABYTE = 1 << 20  # bytes, in torchvision's metadata
# torchvision renames them too: its DenseNet file has older names (models/densenet.py).
OLD_NAME = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$")
# The auxiliary classifiers of GoogLeNet and Inception, which are used only in training.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# These two add their own normalisation, pixels to -1..1, to that of the others.
OWN_NORMALISATION = ("googlenet", "inception_v3")


def fetch_weights(
    model: Model, target: Path, console: Console, download: Download
) -> Pretrained | None:
    """Write the folder of pretrained weights, see ``pretrained``; None if there are none to fetch.

    Args:
        model: ``weights`` gives their place, ``name`` the network that they are for.
        target: appears or is replaced only if everything is right.
        console: for the lines and, on a terminal, the progress.
        download: downloads a registered classifier, ``models:/NAME@ALIAS``, to a folder.

    Raises:
        UserError: they are not available, or are those of another network.
    """
    try:
        pretrained, weights = _found(model, console, download)
        with atomic_folder(target) as folder:
            write_pretrained(folder, pretrained, weights)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or target}: {error.strerror}") from error
    shutil.rmtree(WORK, ignore_errors=True)
    return pretrained


def _found(
    model: Model, console: Console, download: Download
) -> tuple[Pretrained | None, Mapping[str, "Tensor"]]:
    weights = model.weights
    if weights == "none":
        return None, {}
    if weights == "imagenet":
        return _imagenet(model, console)
    if weights.startswith("models:/"):
        return _of_ours(download(weights, WORK))
    if "://" in weights:
        address, _, sha256 = weights.partition("#sha256=")
        path = fetch_address(PARAMETER, address, WORK, console, sha256)
        # Only the name: the file may also come from another address.
        return _of_torchvision(model, path, {"title": PurePosixPath(urlsplit(address).path).name})
    path = in_project(weights)
    if path.is_dir():
        return _of_ours(path)
    if not path.is_file():
        raise UserError(f"{PARAMETER}: there is no {path}")
    return _of_torchvision(model, path, {"title": path.name})


def _imagenet(model: Model, console: Console) -> tuple[Pretrained, Mapping[str, "Tensor"]]:
    from torchvision.models import get_model_weights

    official = get_model_weights(model.name).DEFAULT
    place, _, name = official.url.rpartition("/")
    file = RawFile(
        name,
        bytes=round((official.meta["_file_size"] + 0.001) * MEGABYTE),
        sha256=name.removesuffix(".pth").rpartition("-")[2],
        gzipped=False,
    )
    known = DataSet(str(official), official.meta["recipe"], "", (file,), (place,))
    folder = WORK / "imagenet"
    fetch_files("imagenet", known, folder, console)
    return _of_torchvision(model, folder / name, {"title": str(official), "url": official.url})


def _of_ours(folder: Path) -> tuple[Pretrained, Mapping[str, "Tensor"]]:
    """The backbone of our own classifier; its head is dropped."""
    from imageclf.network.classifier import load_classifier, normalisation

    if not (folder / "model.json").exists():
        raise UserError(f"{PARAMETER}: {folder} holds no model.json and model.safetensors of ours")
    classifier, description = load_classifier(folder)
    model = description.model
    mean, std = normalisation(model.normalize, description.mean, description.std)
    pretrained = Pretrained(
        architecture=architecture(model.model_dump()),
        channels=shape_in_memory(description.image_shape)[2],
        mean=mean,
        std=std,
        origin={
            "title": f"{model.name} {description.fingerprint[:8]}",
            "fingerprint": description.fingerprint,
            "sha256": sha256_file(folder / "model.safetensors"),
        },
    )
    return pretrained, classifier.network.backbone.state_dict()


def _of_torchvision(
    model: Model, path: Path, origin: dict[str, str]
) -> tuple[Pretrained, Mapping[str, "Tensor"]]:
    """The backbone of a state dict of torchvision; its head is dropped."""
    from imageclf.network.architectures import (
        cut_off_head,
        first_convolution,
        head_of,
        torchvision_network,
    )

    if model.name in ARCHITECTURE:
        raise UserError(
            f"{PARAMETER}: for model.name: {model.name} give a folder such as models/classifier, "
            "or models:/NAME@champion; a single file is one of torchvision's networks"
        )
    state = {OLD_NAME.sub(r"\1\2", name): value for name, value in read_state_dict(path).items()}
    network = torchvision_network(model, (SIDE, SIDE, 3), classes=2)
    first = state.get(f"{first_convolution(network)[0]}.weight")
    channels = 3 if first is None or first.ndim != 4 else first.shape[1]
    if channels != 3:
        network = torchvision_network(model, (SIDE, SIDE, channels), classes=2)
    others = (f"{head_of(network)[0]}.", *AUXILIARY)
    weights = {name: value for name, value in state.items() if not name.startswith(others)}
    load_weights(cut_off_head(network)[0], weights)
    mean, std = _imagenet_normalisation(model.name)
    pretrained = Pretrained(
        architecture=architecture(model.model_dump()),
        channels=channels,
        mean=mean if channels == 3 else [statistics.mean(mean)] * channels,
        std=std if channels == 3 else [statistics.mean(std)] * channels,
        origin=origin | {"sha256": sha256_file(path)},
    )
    return pretrained, weights


def _imagenet_normalisation(name: str) -> tuple[list[float], list[float]]:
    """The mean and std with which torchvision's weights of a network were trained."""
    from torchvision.models import get_model_weights

    if name in OWN_NORMALISATION:
        return [0.5] * 3, [0.5] * 3
    preset = get_model_weights(name).DEFAULT.transforms()
    return list(preset.mean), list(preset.std)
