import math
import random

import pytest
import torch

from helpers.small_training import small, training
from imageclf.files import UserError
from imageclf.training.rate_finder import HIGH, LOW, find_rate, range_test


def descent(curvature: float, noise: float = 0.01) -> float:
    """What a range test suggests for gradient descent on curvature * weight ** 2 / 2."""
    weight, generator = 1.0, random.Random(0)

    def step(rate: float) -> float:
        nonlocal weight
        loss = curvature * weight**2 / 2
        weight -= rate * curvature * (weight + generator.gauss(0, noise))
        return loss + generator.random() * 0.01 * curvature

    return range_test(step).suggestion


@pytest.mark.parametrize("curvature", [0.5, 5.0, 50.0, 500.0])
def test_it_suggests_a_rate_below_the_best_one_of_a_parabola(curvature: float) -> None:
    best = 1 / curvature  # one step to the minimum; twice that diverges
    assert best / 30 < descent(curvature) < best


def test_the_curve_ends_where_the_loss_diverges() -> None:
    def step(rate: float) -> float:
        return math.inf if rate > 0.1 else 2 - rate

    curve = range_test(step)
    assert curve.rates[0] == LOW
    assert 0.05 < curve.rates[-1] <= 0.1
    assert curve.smoothed[0] == pytest.approx(curve.losses[0])
    assert range_test(lambda rate: 2.0 - rate / HIGH).rates[-1] == pytest.approx(HIGH)


def test_a_loss_that_never_falls_gives_no_suggestion() -> None:
    with pytest.raises(UserError, match="the loss fell at no learning rate"):
        range_test(lambda _: 1.0).suggestion  # noqa: B018


@pytest.mark.parametrize("output", ["logits", "log_softmax"])
def test_a_first_loss_that_is_not_finite_is_told(output: str) -> None:
    loss = {"logits": "cross_entropy", "log_softmax": "nll"}[output]
    huge = {"model__init": "normal", "model__init_std": 1e30}
    hopeless = training(small(**huge, model__output=output, train__loss=loss))
    with pytest.raises(UserError, match="the loss is (nan|inf) before the first step") as told:
        find_rate(hopeless)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_its_suggestion_trains_about_as_well_as_the_best_of_a_grid(optimizer: str) -> None:
    torch.set_num_threads(1)
    settings = {"train__optimizer": optimizer, "train__epochs": 1, "train__sanity_checks": False}
    suggestion = find_rate(training(small(**settings))).suggestion

    def loss_after(rate: float) -> float:
        try:
            return list(training(small(**settings, train__learning_rate=rate)).run())[-1].val_loss
        except UserError:  # it diverged
            return math.inf

    rates = [10 ** (exponent / 2) for exponent in range(-10, 3)]
    best = min(rates, key=loss_after)
    assert best / 20 < suggestion < best * 3
