"""Descriptions that do not come from a training of this project: each is refused in a line."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from helpers.classifiers import STATS, description
from helpers.params import make_params
from helpers.watch import examples, little_memory
from imageclf.files import UserError, read_json
from imageclf.inference.prediction import load_exported
from imageclf.network.architectures import MAX_PARAMETERS, build_network
from imageclf.network.classifier import build_classifier, load_classifier, save_classifier
from imageclf.network.description import (
    MODEL_JSON,
    Description,
    describe,
    read_description,
    read_fingerprint,
)
from imageclf.network_names import IMAGE_SIZES
from imageclf.params import Model
from imageclf.sections import Fitting

EXAMPLES = 2000
SMALL = make_params(model__hidden=[8], transform__image_size=8).model
SHAPE = [8, 8]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small classifier."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    told = description(image_shape=SHAPE, model=SMALL)
    save_classifier(build_classifier(SMALL, STATS, (8, 8, 1), 10), told, folder)
    return folder


def changed(folder: Path, target: Path, values: object) -> Path:
    """The same folder with another model.json."""
    target.mkdir(exist_ok=True)
    (target / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (target / "model.json").write_text(json.dumps(values))
    return target


def refusal(folder: Path) -> str:
    with little_memory(), pytest.raises(UserError) as caught:
        load_classifier(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"class_names": 5}, "class_names: input should be a valid array"),
        ({"class_names": ["a"] * 10}, "two classes have the same name"),
        ({"class_names": ["a" * 256, "b"]}, "class_names.0: string should have at most 255"),
        ({"image_shape": [200_000, 200_000]}, "image_shape.0: .* less than or equal to 512"),
        ({"image_shape": [-8, -8]}, "image_shape.0: .* greater than or equal to 1"),
        ({"image_shape": [8, 8, 4]}, "3 channels or none, not 4"),
        ({"image_shape": [8]}, "image_shape: list should have at least 2"),
        ({"std": [0.0]}, "std.0: .* greater than or equal to"),
        ({"std": [float("nan")]}, "std.0: input should be a finite number"),
        ({"mean": [float("inf")]}, "mean.0: input should be a finite number"),
        ({"mean": [0.1, 0.2, 0.3]}, "images of 1 channels need as many values"),
        ({"fingerprint": "f" * 63}, "fingerprint: string should match"),
        ({"fingerprint": "f" * 64 + "\n"}, "fingerprint: string should match"),
        ({"fit": "bend"}, "fit: input should be 'crop', 'fill', 'pad' or 'stretch'"),
        ({"unknown\n\x1b[2J": 1}, "extra inputs are not permitted"),
        ({"model": {"name": "mlp"}}, "model.head: field required"),
        ({"model": "mlp"}, "model: input should be"),
    ],
)
def test_a_description_that_cannot_be_is_refused_in_a_line(
    saved: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    whole = read_json(saved / "model.json")
    told = refusal(changed(saved, tmp_path, whole | change))
    assert "model.json is none of this version's" in told
    assert re.search(reason, told), told


def test_what_matters_in_a_training_alone_is_not_written(tmp_path: Path) -> None:
    """So a model from before there was such a parameter can be loaded."""
    skips = make_params(
        model__name="timm/test_vit", model__drop_path=0.2, transform__image_size=64
    ).model
    told = description(model=skips)
    told.write(tmp_path)
    written = read_json(tmp_path / MODEL_JSON)
    assert written["model"].keys().isdisjoint({"weights", "freeze", "drop_path"})
    assert read_description(tmp_path) == told


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden": [10**9, 10**9]}, "model.hidden.0: .* less than or equal to 32768"),
        ({"hidden": [2**15] * 3}, "the network would have 2,1.*,... parameters, more than"),
        ({"hidden": [2**15] * 101}, "model.hidden: list should have at most 100"),
        ({"name": "cnn", "width": 2**12, "stages": 5}, "parameters, more than 1,000,000,000"),
        ({"name": "resnet", "depth": 10**9}, "model.depth: .* less than or equal to 200"),
        ({"hidden": [9]}, r"backbone.layers.0.bias is 8 F32 instead of 9 F32"),
        ({"hidden": [8, 8]}, r"backbone.layers.1.bias is not there instead of 8 F32"),
        ({"hidden": [30_000]}, r"is 8 F32 instead of 30000 F32"),
    ],
)
def test_a_network_too_large_or_another_is_refused_before_it_is_built(
    saved: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    whole = read_json(saved / "model.json")
    told = refusal(changed(saved, tmp_path, whole | {"model": whole["model"] | change}))
    assert re.search(reason, told), told


def test_what_no_model_can_be_called_is_told_before_it_is_trained() -> None:
    values = {name: getattr(description(), name) for name in Description.model_fields}
    assert describe(**values) == description()
    with pytest.raises(UserError, match=r"no model can be described: class_names.1: string should"):
        describe(**values | {"class_names": ["a", "b" * 256]})


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "9" * 5000, "null", "[]", '"\\ud800"'])
def test_what_is_no_description_at_all_is_refused(
    saved: Path, tmp_path: Path, content: str
) -> None:
    folder = changed(saved, tmp_path, None)
    (folder / "model.json").write_text(content)
    assert "none of this version's" in refusal(folder)
    with pytest.raises(UserError, match="none of this version's"):
        read_fingerprint(folder)


def test_a_file_larger_than_any_description_is_not_read(saved: Path, tmp_path: Path) -> None:
    folder = changed(saved, tmp_path, None)
    with (folder / "model.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "larger than any description" in refusal(folder)
    (folder / "model.json").unlink()
    (folder / "model.json").symlink_to("/dev/zero")
    assert "is missing" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_finite_numbers_are_refused(
    saved: Path, tmp_path: Path, value: float
) -> None:
    folder = changed(saved, tmp_path, read_json(saved / "model.json"))
    weights = load_file(folder / "model.safetensors")
    name, tensor = next(iter(weights.items()))
    tensor.view(-1)[-1] = value
    save_file(weights, folder / "model.safetensors")
    assert f"{name} holds values that are no finite numbers" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda weights: weights | {"more": torch.zeros(1 << 20)}, "more is 1048576 F32 instead"),
        (lambda weights: {k: v.double() for k, v in weights.items()}, "F64 instead of .* F32"),
        (lambda weights: {k: v.half() for k, v in weights.items()}, "F16 instead of .* F32"),
        (lambda _: {}, "is not there instead of"),
    ],
)
def test_weights_of_other_names_and_types_are_refused(
    saved: Path, tmp_path: Path, change: Any, reason: str
) -> None:
    folder = changed(saved, tmp_path, read_json(saved / "model.json"))
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    told = refusal(folder)
    assert "does not fit model.json" in told
    assert re.search(reason, told), told


@pytest.mark.parametrize("tail", [b"more", b"\0" * 1000])
def test_weights_longer_or_shorter_than_their_header_tells_are_refused(
    saved: Path, tmp_path: Path, tail: bytes
) -> None:
    folder = changed(saved, tmp_path, read_json(saved / "model.json"))
    whole = (folder / "model.safetensors").read_bytes()
    claimed = (1 << 40).to_bytes(8, "little") + whole[8:]
    for content in (whole + tail, whole[: -len(tail)], whole[:100], b"", claimed):
        (folder / "model.safetensors").write_bytes(content)
        assert "model.safetensors is no usable file" in refusal(folder)


def test_counting_parameters_draws_no_number() -> None:
    torch.manual_seed(3)
    build_network(make_params().model, (28, 28, 1), 10)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    with torch.device("meta"):
        build_network(make_params().model, (28, 28, 1), 10)
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(3).get_state())
    assert not torch.equal(torch.get_rng_state(), after)


def test_a_training_of_too_many_parameters_is_refused_in_a_line() -> None:
    with little_memory(), pytest.raises(UserError, match=f"more than {MAX_PARAMETERS:,}"):
        build_network(make_params(model__head=[2**15, 2**15]).model, (28, 28, 1), 10)
    with pytest.raises(UserError, match=r"model.head.0: .*less than or equal to 32768, not 10"):
        make_params(model__head=[10**9])


NOT_OURS = "was not exported by this project"


def exported(onnx_file: Path, target: Path, metadata: dict[str, str]) -> Path:
    """The file with other metadata."""
    model = onnx.load(onnx_file)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, target)
    return target


WHOLE = {
    "class_names": '["a", "b", "c", "d"]',
    "image_shape": "[8, 8]",
    "fit": "fill",
    "fingerprint": "f" * 64,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"class_names": None}, "it has no class_names"),
        ({"class_names": None, "fit": None}, "it has no class_names, fit"),
        ({"class_names": "["}, "class_names: invalid JSON"),
        ({"class_names": "5"}, "class_names: input should be a valid list"),
        ({"class_names": '["a", "a", "b", "c"]'}, "two classes have the same name"),
        ({"class_names": '["a", "b"]'}, r"it maps .* probabilities tensor\(float\) 4 .*, and not"),
        ({"image_shape": "[200000, 200000]"}, "less than or equal to 512"),
        ({"image_shape": "[9, 8]"}, r"it maps images tensor\(uint8\) 8x8 to .*, and not .* 9x8"),
        ({"image_shape": "[" * 100_000}, "image_shape: invalid JSON"),
        ({"fit": "bend"}, "fit: input should be"),
        ({"interpolation": "nearest"}, "interpolation: input should be"),
        ({"crop": "7"}, "crop: input should be less than or equal to 1"),
        ({"fingerprint": "--output=FILE"}, "fingerprint: string should match"),
    ],
)
def test_a_model_of_others_is_refused_in_words(
    onnx_file: Path, tmp_path: Path, change: dict[str, str | None], reason: str
) -> None:
    metadata = {name: value for name, value in (WHOLE | change).items() if value is not None}
    file = exported(onnx_file, tmp_path / "model.onnx", metadata)
    with little_memory(), pytest.raises(UserError, match=f"{NOT_OURS}: .*{reason}") as caught:
        load_exported(file)
    assert "\n" not in str(caught.value)


def test_the_input_of_a_network_is_told_where_it_is_its_own(
    onnx_file: Path, tmp_path: Path
) -> None:
    description(interpolation="bicubic", crop=0.875).write(tmp_path)
    assert read_description(tmp_path).fitting == Fitting("fill", "bicubic", 0.875)
    description().write(tmp_path)
    assert "crop" not in (tmp_path / MODEL_JSON).read_text()
    assert read_description(tmp_path).fitting == Fitting("fill")
    told = WHOLE | {"fit": "crop", "interpolation": "bicubic", "crop": "0.875"}
    file = exported(onnx_file, tmp_path / "model.onnx", told)
    assert load_exported(file).fitting == Fitting("crop", "bicubic", 0.875)


def test_metadata_of_others_beside_ours_change_nothing(onnx_file: Path, tmp_path: Path) -> None:
    file = exported(onnx_file, tmp_path / "model.onnx", WHOLE | {"author": "somebody"})
    assert load_exported(file).class_names == ["a", "b", "c", "d"]


def test_a_network_that_gives_no_numbers_is_refused(onnx_file: Path, tmp_path: Path) -> None:
    model = onnx.load(onnx_file)
    weights = np.full((64, 4), np.nan, np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "weights"))
    onnx.save(model, tmp_path / "model.onnx")
    classifier = load_exported(tmp_path / "model.onnx")
    with pytest.raises(UserError, match="no finite numbers"):
        classifier.probabilities(np.ones((1, 8, 8, 1), np.uint8))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([*IMAGE_SIZES, *get_args(Model.model_fields["init"].annotation)]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from([*Model.model_fields, "x"]), inner, max_size=3)
    ),
    max_leaves=10,
)


ANY = examples(EXAMPLES)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@ANY
@given(
    st.dictionaries(st.sampled_from([*Description.model_fields]), VALUES, max_size=2),
    st.dictionaries(st.sampled_from([*Model.model_fields]), VALUES, max_size=3),
)
def test_any_description_is_taken_or_refused(
    saved: Path, tmp_path: Path, change: dict[str, Any], section: dict[str, Any]
) -> None:
    whole = read_json(saved / "model.json")
    values = whole | {"model": whole["model"] | section} | change
    with little_memory(), suppress(UserError):
        load_classifier(changed(saved, tmp_path / "changed", values))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@ANY
@given(st.dictionaries(st.sampled_from([*WHOLE]), VALUES.map(json.dumps) | st.text(), max_size=3))
def test_any_metadata_are_taken_or_refused(
    onnx_file: Path, tmp_path: Path, change: dict[str, str]
) -> None:
    file = exported(onnx_file, tmp_path / "model.onnx", WHOLE | change)
    with little_memory(), suppress(UserError):
        load_exported(file)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@ANY
@given(
    st.sampled_from(["model.json", "model.safetensors"]),
    st.floats(0, 1),
    st.integers(0, 20),
    st.binary(max_size=20),
)
def test_any_bytes_are_taken_or_refused(
    saved: Path, tmp_path: Path, name: str, place: float, gone: int, put: bytes
) -> None:
    folder = changed(saved, tmp_path / "changed", read_json(saved / "model.json"))
    whole = (saved / name).read_bytes()
    start = int(place * min(len(whole), 1500))  # where the header of the weights ends
    (folder / name).write_bytes(whole[:start] + put + whole[start + gone :])
    with little_memory(), suppress(UserError):
        load_classifier(folder)
