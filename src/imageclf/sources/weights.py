"""The sources of pretrained weights.

``model.weights`` names the ImageNet weights that are published for a network of torchvision or
timm, a file with a state dict for one of them, or our own classifier, in a folder or in MLflow.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rich.console import Console

from imageclf.data.shapes import shape_in_memory
from imageclf.files import UserError, atomic_folder, sha256_file, write_json
from imageclf.network.pretrained import (
    Pretrained,
    architecture,
    write_pretrained,
)
from imageclf.network_names import is_published
from imageclf.params import Model
from imageclf.project.folder import OWN_INPUT
from imageclf.sources.catalog import (
    DOWNLOADS,
    fetch_address,
    fetch_files,
    in_project,
)
from imageclf.sources.published_weights import published_weights
from imageclf.sources.state_dicts import backbone_of_file

if TYPE_CHECKING:
    from torch import Tensor

PARAMETER = "model.weights"
Download = Callable[[str, Path], Path]
WORK = DOWNLOADS / "weights"


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
            write_json(folder / OWN_INPUT.name, _own_input(model.name))
    except OSError as error:
        raise UserError(f"cannot write {error.filename or target}: {error.strerror}") from error
    shutil.rmtree(WORK, ignore_errors=True)
    return pretrained


def _own_input(name: str) -> dict[str, Any] | None:
    """The images that a published network wants, see ``own_input``; None for all others."""
    if not is_published(name):
        return None
    from imageclf.network.published import own_input

    return own_input(name)


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
        origin = {"title": PurePosixPath(urlsplit(address).path).name}
        with _removed_if_refused():
            return backbone_of_file(model, path, origin)
    path = in_project(weights)
    if path.is_dir():
        return _of_ours(path)
    if not path.is_file():
        raise UserError(f"{PARAMETER}: there is no {path}")
    return backbone_of_file(model, path, {"title": path.name})


def _imagenet(model: Model, console: Console) -> tuple[Pretrained, Mapping[str, "Tensor"]]:
    known = published_weights(model.name)
    folder = WORK / "imagenet"
    fetch_files("imagenet", known, folder, console)
    name = known.files[0].name
    origin = {"title": known.title}
    if known.urls:
        origin["url"] = f"{known.urls[0]}/{name}"
    with _removed_if_refused():
        return backbone_of_file(model, folder / name, origin, published=known)


@contextmanager
def _removed_if_refused() -> Iterator[None]:
    """Remove what was downloaded if it is refused; a download that only stopped goes on later."""
    try:
        yield
    except UserError:
        shutil.rmtree(WORK, ignore_errors=True)
        raise


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
