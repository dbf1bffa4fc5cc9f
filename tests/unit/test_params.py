from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from helpers.params import ROOT, changed, make_params
from imageclf.files import UserError, read_yaml
from imageclf.params import (
    check_params,
    flatten,
    known_keys,
    load_params,
    tracked_values,
)


def test_params_yaml_is_complete_and_in_the_order_of_the_schema() -> None:
    assert list(flatten(read_yaml(ROOT / "params.yaml"))) == known_keys()


def test_params_are_frozen() -> None:
    params = make_params()
    with pytest.raises(ValidationError):
        params.train.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__learing_rate": 0.1}, "train.learing_rate .* did you mean train.learning_rate?"),
        ({"trian": {}}, "trian is not a parameter; did you mean train?"),
        ({"transform__val_fraction": 1.5}, "transform.val_fraction: .* less than 1, not 1.5"),
        ({"train__learning_rate": -1.0}, "train.learning_rate: .* greater than 0, not -1.0"),
        ({"train__learning_rate": float("nan")}, "train.learning_rate: .* finite"),
        ({"train__epochs": "20"}, "train.epochs: .* valid integer, not '20'"),
        ({"train__epochs": True}, "train.epochs: .* valid integer, not True"),
        ({"model__hidden": [64, 0]}, "model.hidden.1: .* greater than 0"),
        ({"model__name": "mpl"}, "model.name: there is no architecture mpl; did you mean mlp?"),
        ({"model__name": "\ud800"}, r"model.name: '\\ud800' is no text that UTF-8 can hold"),
        ({"data__source": "\ud800"}, r"data.source: '\\ud800' is no text"),
        ({"data__splits": {"train": ["\ud800"]}}, r"data.splits.*: '\\ud800' is no text"),
        ({"transform__image_size": "auto"}, "image_size: auto is for the networks of .*: say it"),
        ({"transform__crop": 0.9, "transform__fit": "pad"}, "crop: 0.9 needs fit: crop, not pad"),
        ({"model__name": "resnet19"}, "model.name: .* did you mean resnet18, resnet or resnet152?"),
        ({"model__name": "timm/resnet19"}, "there is no architecture timm/resnet19; did you mean "),
        ({"model__name": "resnet18"}, "made for images of 32 to 512"),
        ({"train__nesterov": True}, "nesterov: true needs optimizer: sgd and a momentum"),
        ({"train__momentum": 0.9}, "momentum: 0.9 needs optimizer: sgd or rmsprop"),
        ({"augment__shift": 28}, "augment.shift: 28 leaves nothing of an image of 28 pixels"),
        ({"augment__cutout": 40}, "augment.cutout: 40 leaves nothing of an image of 28 pixels"),
        ({"model__name": "cnn", "train__batch_size": 1}, "train.batch_size: 1 is too small"),
        ({"train__loss": "cross_entropy"}, "needs model.output: logits, not log_softmax"),
        ({"model__name": "cnn", "transform__image_size": 224}, "made for images of 28 to 128"),
        (
            {"transform__val_fraction": 0.5, "transform__test_fraction": 0.5},
            "leave no image to train on",
        ),
        (
            {"runtime__device": "gpu"},
            "runtime.device: use auto, cpu, mps, cuda or cuda:1, not 'gpu'",
        ),
        ({"runtime__processes": 0}, "runtime.processes: .* greater than 0"),
        (
            {"runtime__processes": 2, "runtime__device": "cuda:1"},
            "runtime: processes: 2 do not fit on device: cuda:1; use auto, cpu or cuda",
        ),
        *(
            ({"register__name": name}, "register.name: .* is no name for a model: use letters")
            for name in (
                "a/b",
                "a:b",
                "a@b",
                "a?b",
                "a#b",
                "a%2F",
                "..",
                ".",
                ".a",
                " ",
                "a ",
                "a\n",
            )
        ),
        ({"register__name": "a" * 251}, "register.name: .* at most 250 characters"),
        ({"register__experiment": " "}, "register.experiment: .* pattern"),
        ({"data__max_leak_fraction": 1.1}, "max_leak_fraction: .* less than or equal to 1"),
        ({"data__splits": {"test": "a"}}, "data.splits: name the folder of train"),
        (
            {"data__source": "https://me:hunter2x@host/x.zip"},
            "data.source: the address holds a pass",
        ),
        ({"data__source": "https://host/x.zip?a=b&X-Amz-Signature=0a"}, "or download the file"),
        (
            {"model__weights": f"https://host/x?token=y#sha256={'0' * 64}"},
            "model.weights: the address holds a password or a token",
        ),
        ({"data__splits": {"train": "../a"}}, "data.splits: name folders in the source, such as"),
        ({"data__splits": {"train": []}}, "data.splits: name folders in the source, such as"),
        ({"data__splits": {"train": ".", "holdout": "a"}}, "data.splits.holdout"),
        ({"data__splits": {"train": 1}}, "data.splits.train.* valid string"),
        ({"model__weights": ""}, "model.weights: write none for weights that are drawn"),
        ({"model__weights": "models:/cats"}, "models:/cats is no model: models:/NAME/3 and"),
        ({"model__weights": "http://host/a.pth"}, "an http address needs its checksum: URL#sha256"),
        ({"model__weights": "ftp://host/a#sha256=" + "0" * 64}, "model.weights: an http address"),
        ({"model__weights": "imagenet"}, "model: weights: imagenet .* none of name: mlp"),
        ({"model__freeze": "backbone"}, "model: freeze: backbone needs weights: a frozen"),
        ({"model__drop_path": 1.0}, "model.drop_path.* less than 1, not 1.0"),
        *(
            (
                {"model__drop_path": 0.1, "model__name": name, "transform__image_size": 64},
                f"model: drop_path: 0.1 is for .*: name: {name} has no blocks to skip",
            )
            for name in ("mlp", "mlp_sequential", "cnn", "resnet", "resnet18", "vit_b_16")
        ),
        (
            {
                "model__drop_path": 0.1,
                "model__name": "timm/test_vit",
                "model__weights": "a",
                "model__freeze": "backbone",
                "transform__image_size": 64,
            },
            "model: drop_path: 0.1 does nothing with freeze: backbone",
        ),
        (
            {"train__layer_decay": 0.8},
            "train.layer_decay: 0.8 needs model.weights, and a backbone that learns",
        ),
        (
            {"model__freeze": "then", "model__weights": "a", "train__head_epochs": 20},
            "freeze: then needs more train.epochs than train.head_epochs",
        ),
    ],
)
def test_a_wrong_value_is_named_by_its_path(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_params(changed(**changes), "params.yaml")
    assert "\n" not in str(caught.value)


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(UserError, match="train.epochs.*train.batch_size"):
        check_params(changed(train__epochs=0, train__batch_size=0), "params.yaml")


def test_a_missing_key_is_named() -> None:
    values = changed()
    del values["train"]["epochs"]
    with pytest.raises(UserError, match="train.epochs is missing"):
        check_params(values, "params.yaml")


def test_a_missing_or_broken_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1\nb: 2")
    with pytest.raises(UserError, match="not valid YAML") as caught:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_tracked_values_hold_everything_but_runtime() -> None:
    values = tracked_values(make_params())
    assert list(values) == [key for key in known_keys() if not key.startswith("runtime.")]
    assert values["train.learning_rate"] == 0.003


def test_no_parameter_has_a_name_that_dvc_drops_from_its_key() -> None:
    assert not {key.split(".")[-1] for key in known_keys()} & {"size", "nfiles"}


@pytest.mark.parametrize(
    "weights",
    [
        "none",
        "../models/classifier",
        "models:/cats@champion",
        "models:/cats and dogs/12",
        f"https://host/a.pth?download=1#sha256={'a' * 64}",
    ],
)
def test_weights_may_come_from_many_places(weights: str) -> None:
    model = make_params(model__weights=weights).model
    assert model.pretrained == (weights != "none")


def test_only_a_frozen_backbone_and_images_that_never_change_allow_for_features() -> None:
    frozen = {"model__weights": "a", "model__freeze": "backbone"}
    assert make_params(**frozen).trains_on_features
    assert not make_params(model__weights="a").trains_on_features
    assert not make_params(model__weights="a", model__freeze="then").trains_on_features
    for name, value in {"shift": 1, "flip": True, "crop_scale": 0.9, "mixup": 0.2}.items():
        assert not make_params(**frozen, **{f"augment__{name}": value}).trains_on_features


def test_any_share_of_leaks_can_be_allowed() -> None:
    assert make_params(data__max_leak_fraction=1.0).data.max_leak_fraction == 1


@pytest.mark.parametrize("name", ["fashion-mnist", "it's mine", "Käse 2.1 (neu)", "猫", "a"])
def test_names_of_models_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_model_name

    _validate_model_name(name)
    assert make_params(register__name=name).register_.name == name
