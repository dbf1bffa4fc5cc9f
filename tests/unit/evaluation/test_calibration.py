from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from helpers.images import learnable_split
from helpers.small_training import fresh, small
from imageclf.data.prepared import Labels, Split
from imageclf.evaluation.calibration import (
    calibrate,
    calibration_figures,
    expected_calibration_error,
    fit_temperature,
)
from imageclf.evaluation.metrics import Predictions, predict
from imageclf.inference.calibration import read_calibration
from imageclf.params import OUTPUT_OF_LOSS
from imageclf.training.loop import Training


def noisy(count: int, seed: int) -> Split:
    """Images of which a quarter has a label drawn at random."""
    split = learnable_split(count, seed)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, 4, count)
    return Split(split.images, np.where(generator.random(count) < 0.25, drawn, split.labels))


VAL, TEST = noisy(300, 1), noisy(600, 2)


def drawn(count: int, temperature: float) -> tuple[NDArray[np.float64], Labels]:
    """Logits (count x 5) that are too large by a factor, and labels drawn by the right ones."""
    generator = np.random.default_rng(0)
    right = torch.from_numpy(generator.normal(0, 2, (count, 5)))
    labels = torch.multinomial(right.softmax(1), 1, generator=torch.manual_seed(0))[:, 0]
    return right.numpy() * temperature, labels.numpy()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_the_logits_were_made_with_is_found(temperature: float) -> None:
    logits, labels = drawn(20_000, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)
    constants = np.arange(len(logits))[:, None] % 7.0
    assert fit_temperature(logits + constants, labels) == fit_temperature(logits, labels)


def test_few_images_without_a_mistake_lead_to_no_extreme_temperature() -> None:
    logits = 8 * np.eye(4)[np.arange(12) % 4]
    assert 0.9 < fit_temperature(logits, np.arange(12) % 4) < 1
    assert 1 < fit_temperature(logits, (np.arange(12) + 1) % 4) < 4


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.3, 0.7]] * 10, np.float32)
    labels = np.array([0] * 7 + [1] * 3 + [1] * 8 + [0] * 2)
    found = expected_calibration_error(Predictions(probabilities, labels))
    assert found == pytest.approx((0.9 - 0.7) / 2 + (0.8 - 0.7) / 2, abs=1e-6)


@pytest.fixture(scope="module")
def too_sure() -> dict[str, Tensor]:
    """The weights of a network that learnt noisy labels by heart."""
    settings = small(train__epochs=10, train__learning_rate=0.02)
    classifier = fresh(settings)
    list(Training(settings, classifier, noisy(300, 0), VAL, classes=4).run())
    return classifier.state_dict()


@pytest.mark.parametrize("loss", OUTPUT_OF_LOSS)
def test_a_network_that_is_too_sure_is_calibrated_whatever_its_output(
    loss: str, too_sure: dict[str, Tensor], tmp_path: Path
) -> None:
    classifier = fresh(small(train__loss=loss, model__output=OUTPUT_OF_LOSS[loss]))
    classifier.load_state_dict(too_sure)
    before = predict(classifier, TEST)
    assert calibrate(classifier, VAL, None, "none").temperature == 1
    calibrate(classifier, VAL, None, "temperature").write(tmp_path / "calibration")
    classifier.temperature = read_calibration(tmp_path / "calibration").temperature
    after = predict(classifier, TEST)
    assert classifier.temperature > 1.2
    assert (after.predicted == before.predicted).all()
    assert after.loss.mean() < before.loss.mean()
    error_before = expected_calibration_error(before)
    assert expected_calibration_error(after) < 0.7 * error_before
    figures = calibration_figures(after, classifier.temperature)
    assert figures["uncalibrated_ece"] == pytest.approx(error_before, abs=1e-3)
    assert figures["uncalibrated_loss"] == pytest.approx(before.loss.mean(), abs=0.01)
