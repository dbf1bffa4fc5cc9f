import math
from typing import get_args

import numpy as np
import pytest
import torch

from helpers.small_training import TRAIN, VAL, fresh, small, training
from imageclf.data.prepared import Split, pixel_counts, stats_of
from imageclf.network.classifier import build_classifier
from imageclf.params import Model
from imageclf.training import sanity
from imageclf.training.loop import EpochResult, Position, Training
from imageclf.training.sanity import ChanceWatch, check, first_loss_limit


def test_a_sound_training_gets_no_warning() -> None:
    assert check(training(small())) == []


def test_a_first_loss_far_from_guessing_is_named() -> None:
    (warning,) = check(
        training(small(model__normalize="none", model__init="normal", model__init_std=0.5))
    )
    assert "guessing evenly gives 1.39" in warning
    assert "model.normalize" in warning


BUILT_IN = ("mlp", "mlp_sequential", "cnn", "resnet")
INITS = [
    each
    for each in get_args(Model.model_fields["init"].annotation)
    if each not in {"normal", "uniform"}
]


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("init", INITS)
def test_sound_weights_get_no_warning_of_the_first_loss(name: str, init: str) -> None:
    for seed in range(2):
        params = small(
            seed=seed,
            model__name=name,
            model__init=init,
            model__width=8,
            model__depth=1,
            transform__image_size=8 if name.startswith("mlp") else 28,
            model__dropout=0.2,
        )
        larger = TRAIN.images[:40].repeat(4, axis=1).repeat(4, axis=2)[:, :28, :28]
        images = TRAIN if name.startswith("mlp") else Split(larger, TRAIN.labels[:40])
        torch.manual_seed(seed)
        stats = stats_of(pixel_counts(images.images))
        network = build_classifier(params.model, stats, images.images.shape[1:], 4)
        found = check(Training(params, network, images, VAL, classes=4))
        assert not [each for each in found if "before training" in each], found


def test_weights_of_a_size_that_no_network_bears_are_named() -> None:
    for changes in (
        {"model__init": "normal", "model__init_std": 1.0},
        {"model__normalize": "none"},
        {"model__normalize": "none", "model__init": "kaiming_normal"},
    ):
        (warning,) = check(training(small(**changes)))
        assert "and sound initial weights" in warning


def test_the_limit_of_the_first_loss_follows_from_the_classes_and_the_weights() -> None:
    even = torch.full((10,), 0.1, dtype=torch.float64)
    assert 2.6 < first_loss_limit(small(), even) < 3.3
    assert first_loss_limit(small(model__init="kaiming_normal"), even) > 4
    assert first_loss_limit(small(model__name="cnn", transform__image_size=64), even) > 4
    uneven = torch.tensor([0.95, 0.05], dtype=torch.float64)
    assert 1.3 < first_loss_limit(small(), uneven) < 3
    many = torch.full((50_000,), 1 / 50_000, dtype=torch.float64)
    assert math.log(50_000) < first_loss_limit(small(), many) < math.log(50_000) + 0.4


def test_a_step_that_raises_the_loss_is_named() -> None:
    warnings = check(training(small(train__optimizer="sgd", train__learning_rate=1000.0)))
    assert any("instead of lowering it" in warning for warning in warnings)


def result(train_accuracy: float, val_accuracy: float) -> EpochResult:
    return EpochResult(1, 0.1, 1.0, train_accuracy, 1.0, val_accuracy, 1.0, 1.0)


def test_a_network_at_chance_is_named_once() -> None:
    hopeless, learning = result(0.9, 0.26), result(0.25, 0.9)
    watch = ChanceWatch(training(small()))
    assert "is not learning" in (watch.after(hopeless) or "")
    assert watch.after(hopeless) is None
    watch = ChanceWatch(training(small()))
    assert watch.after(learning) is None
    assert watch.after(hopeless) is None


def test_the_first_look_comes_within_the_first_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sanity.FIRST_LOOK < 60
    assert ChanceWatch(training(small())).during(Position(1, 1000, 0.7, 0.25)) is None
    monkeypatch.setattr(sanity, "FIRST_LOOK", 0.0)
    watch = ChanceWatch(training(small()))
    assert "not learning" in (watch.during(Position(1, 1000, 0.7, 0.25)) or "")
    assert watch.during(Position(1, 1200, 0.7, 0.25)) is None


def test_labels_without_a_pattern_are_noticed_in_a_real_training() -> None:
    """What became 51 % on cats and dogs without a word: noise never gets past guessing."""
    generator = np.random.default_rng(0)
    noise = Split(TRAIN.images, generator.integers(0, 4, len(TRAIN)))
    val = Split(VAL.images, generator.integers(0, 4, len(VAL)))
    params = small(train__epochs=2, train__learning_rate=0.0001)
    hopeless = Training(params, fresh(params), noise, val, classes=4)
    watch = ChanceWatch(hopeless)
    assert any(watch.after(result) for result in hopeless.run())
    learning = training(params.model_copy(update={"train": small().train}))
    watch = ChanceWatch(learning)
    assert not any(watch.after(result) for result in learning.run())
    assert math.isclose(learning.majority, 0.25)
