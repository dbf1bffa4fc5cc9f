import math

import numpy as np
import pytest

from helpers.small_training import TRAIN, VAL, fresh, small, training
from imageclf.data.prepared import Split
from imageclf.training import sanity
from imageclf.training.loop import EpochResult, Position, Training
from imageclf.training.sanity import ChanceWatch, check


def test_a_sound_training_gets_no_warning() -> None:
    assert check(training(small())) == []


def test_a_first_loss_far_from_guessing_is_named() -> None:
    (warning,) = check(
        training(small(model__normalize="none", model__init="normal", model__init_std=0.5))
    )
    assert "guessing evenly gives 1.39" in warning
    assert "model.normalize" in warning


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


def test_where_weights_are_averaged_train_tells_whether_they_learn() -> None:
    averaging = training(small(train__ema=0.99))
    assert ChanceWatch(averaging).after(result(0.9, 0.26)) is None
    assert "train images" in (ChanceWatch(averaging).after(result(0.26, 0.9)) or "")


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
