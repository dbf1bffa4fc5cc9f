"""Every name that params.yaml offers the training really trains."""

from collections.abc import Mapping
from typing import Any, get_args

import pytest
import torch

from helpers.images import learnable_split
from helpers.params import make_params
from imageclf.data.prepared import Split, pixel_counts, stats_of
from imageclf.network.architectures import ARCHITECTURES
from imageclf.network.classifier import build_classifier
from imageclf.params import OUTPUT_OF_LOSS, Model, Train
from imageclf.training.learner import measure
from imageclf.training.loop import EpochResult, Training
from imageclf.training.losses import build_loss, image_count

CLASSES = 4
# Sides of 8 pixels for fully connected networks, of 32 for all others: torchvision's least.
SMALL = learnable_split(240, seed=0), learnable_split(80, seed=1)
LARGE = learnable_split(64, seed=0, side=32), learnable_split(32, seed=1, side=32)
QUICK = {
    "transform__image_size": 32,
    "model__hidden": [16],
    "model__width": 8,
    "model__depth": 1,
    "train__epochs": 3,
    "train__batch_size": 8,
    "train__learning_rate": 0.01,
}
AUGMENTATIONS = {
    "shift": 1,
    "flip": True,
    "rotate": 5.0,
    "crop_scale": 0.9,
    "brightness": 0.2,
    "contrast": 0.2,
    "cutout": 2,
    "erase": 0.5,
    "policy": "randaugment",
    "mixup": 0.2,
    "cutmix": 1.0,
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def names(section: type[Model | Train], parameter: str) -> tuple[str, ...]:
    """What the schema allows for a parameter."""
    return get_args(section.model_fields[parameter].annotation)


def train(
    changes: Mapping[str, Any], data: tuple[Split, Split] = SMALL
) -> tuple[Training, float, EpochResult]:
    """A training that has ended, its val loss before the first step, and its last epoch."""
    params = make_params(**QUICK | changes)
    train_split, val_split = data
    torch.manual_seed(params.seed)
    classifier = build_classifier(
        params.model,
        stats_of(pixel_counts(train_split.images)),
        train_split.images.shape[1:],
        CLASSES,
    )
    training = Training(params, classifier, train_split, val_split, CLASSES)
    before, _ = measure(
        classifier,
        [(torch.tensor(val_split.images), torch.tensor(val_split.labels))],
        build_loss(params.train, torch.tensor(train_split.labels), CLASSES),
        image_count,
    )
    return training, before, list(training.run())[-1]


def assert_learns(changes: Mapping[str, Any], data: tuple[Split, Split] = SMALL) -> None:
    _, before, result = train(changes, data)
    assert result.val_loss < 0.9 * before


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_model(name: str) -> None:
    assert_learns({"model__name": name}, SMALL if name.startswith("mlp") else LARGE)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_torchvision_model(name: str) -> None:
    small_steps = {"train__learning_rate": 0.0003, "train__epochs": 4}
    assert_learns({"model__name": name} | small_steps, LARGE)


@pytest.mark.parametrize("name", names(Model, "activation"))
def test_activation(name: str) -> None:
    assert_learns({"model__activation": name})


@pytest.mark.parametrize("name", sorted({*names(Model, "init")} - {"zeros"}))
def test_init(name: str) -> None:
    assert_learns({"model__init": name})


def test_zeros_stay_at_chance_in_a_deep_network() -> None:
    _, before, result = train({"model__init": "zeros", "model__hidden": [16, 16]})
    assert result.val_accuracy == 1 / CLASSES
    assert result.val_loss == pytest.approx(before, rel=0.01)


@pytest.mark.parametrize("name", names(Train, "loss"))
def test_loss(name: str) -> None:
    assert_learns({"train__loss": name, "model__output": OUTPUT_OF_LOSS[name]})


@pytest.mark.parametrize("name", names(Train, "optimizer"))
def test_optimizer(name: str) -> None:
    rate = 0.1 if name == "sgd" else 0.01
    assert_learns({"train__optimizer": name, "train__learning_rate": rate})


@pytest.mark.parametrize("name", names(Train, "schedule"))
def test_schedule(name: str) -> None:
    assert_learns({"train__schedule": name, "train__warmup": 0.1})


@pytest.mark.parametrize(("name", "value"), AUGMENTATIONS.items(), ids=AUGMENTATIONS)
def test_augmentation(name: str, value: float) -> None:
    assert_learns({f"augment__{name}": value})


def test_every_augmentation_is_tested() -> None:
    assert {*AUGMENTATIONS} == {*make_params().augment.model_dump()}


@pytest.mark.parametrize("name", names(Train, "class_weights"))
def test_class_weights(name: str) -> None:
    assert_learns({"train__class_weights": name})


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("name", names(Train, "amp"))
def test_amp(name: str, model: str) -> None:
    changes = {"train__amp": name, "model__name": model}
    assert_learns(changes, SMALL if model == "mlp" else LARGE)


def test_convolutions_work_channels_last() -> None:
    training, _, _ = train({"model__name": "cnn", "train__epochs": 1}, LARGE)
    kernels = [value for value in training.classifier.parameters() if value.ndim == 4]
    assert kernels
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in kernels)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_compile(model: str) -> None:
    changes = {"train__compile": True, "model__name": model}
    assert_learns(changes, SMALL if model == "mlp" else LARGE)
