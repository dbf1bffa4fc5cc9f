from collections.abc import Iterator
from typing import Any

import pytest
import torch

from helpers.params import make_params
from helpers.two_processes import Pair, carry_out, job, two_processes
from imageclf.params import Params
from imageclf.training.batch_sharing import Group

SMALL = {"model__hidden": [16], "train__epochs": 3, "train__batch_size": 20}
LOGITS = {"model__output": "logits", "train__loss": "cross_entropy"}
AUGMENTED = {
    "augment__shift": 1,
    "augment__rotate": 10.0,
    "augment__brightness": 0.2,
    "augment__mixup": 0.3,
    "augment__cutmix": 1.0,
}
WEIGHTED = {"train__class_weights": "balanced", "train__label_smoothing": 0.1}
SCHEDULED = {
    "train__optimizer": "sgd",
    "train__learning_rate": 0.3,
    "train__momentum": 0.9,
    "train__schedule": "one_cycle",
    "train__clip_gradient": 0.5,
    "train__ema": 0.9,
    "train__patience": 1,
}
NORMALISED = {"model__name": "resnet", "model__width": 4, "model__depth": 1, **LOGITS}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "uneven batches, the last of one image": {"train__batch_size": 7},
    "augmented": AUGMENTED,
    "weighted nll": WEIGHTED,
    "weighted mse": WEIGHTED | {"train__loss": "mse", "model__output": "softmax"},
    "weighted, mixed": WEIGHTED | AUGMENTED | LOGITS,
    "scheduled, averaged, stopping early": SCHEDULED,
}


def small(**changes: Any) -> Params:
    return make_params(**SMALL | changes)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_processes(tmp_path_factory.mktemp("pair")) as both:
        yield both


@pytest.mark.parametrize("images", [1, 2, 3, 7, 64, 65])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_are_all_of_a_batch_each_image_once_and_keep_its_pairs(
    images: int, size: int
) -> None:
    shares = [Group(rank, size).share(images) for rank in range(size)]
    seen = [list(range(images)[share]) for share in shares]
    assert [image for share in seen for image in share] == list(range(images))
    assert all(not share or share[0] % 2 == 0 for share in seen)
    lengths = [len(share) for share in seen]
    assert max(lengths) - min(lengths) <= 2


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(pair: Pair, case: str) -> None:
    task = job(small(**CASES[case]), images=198)
    alone, together = carry_out(task), pair(task)
    assert alone.losses[0] > 1.05 * alone.losses[-2]  # there was something to learn
    assert together.losses == pytest.approx(alone.losses, abs=1e-4)
    ours, theirs = alone.values, together.values
    assert ours["steps_done"] == theirs["steps_done"]
    for name, weights in ours["classifier"].items():
        assert torch.allclose(theirs["classifier"][name], weights, atol=1e-4), name


@pytest.mark.parametrize(
    ("case", "double", "near"),
    [
        ("plain", True, 1e-6),
        ("uneven batches, the last of one image", True, 1e-6),
        ("augmented", True, 1e-6),
        ("weighted, mixed", False, 1e-4),  # torch's loss of mixtures takes single precision only
    ],
)
def test_a_batch_in_parts_gives_the_steps_of_the_whole(
    pair: Pair, case: str, double: bool, near: float
) -> None:
    whole = carry_out(job(small(**CASES[case]), images=198, double=double))
    parts = job(small(**CASES[case], train__accumulate=3), images=198, double=double)
    accumulated = carry_out(parts)
    for outcome in (accumulated, pair(parts)):
        assert outcome.values["steps_done"] == whole.values["steps_done"]
        assert outcome.losses == pytest.approx(whole.losses, abs=near)
    for name, weights in whole.values["classifier"].items():
        assert torch.allclose(accumulated.values["classifier"][name], weights, atol=near), name


def test_batch_norm_is_that_of_the_whole_batch(pair: Pair) -> None:
    params = small(**NORMALISED, train__epochs=1, train__batch_size=9, train__optimizer="sgd")
    task = job(params, images=19, side=28)  # the last batch is one image: none for one of the two
    alone, together = carry_out(task), pair(task)
    assert together.losses == pytest.approx(alone.losses, abs=1e-4)
    for name, weights in alone.values["classifier"].items():
        assert torch.allclose(together.values["classifier"][name], weights, atol=1e-5), name


def test_the_val_split_is_measured_in_shares(pair: Pair) -> None:
    task = job(small(train__epochs=1, train__class_weights="balanced"), val_images=3300)
    assert pair(task).losses == pytest.approx(carry_out(task).losses, abs=1e-5)


@pytest.mark.parametrize("stop_after", [4, 10, 15])
def test_a_training_goes_on_with_another_number_of_processes(pair: Pair, stop_after: int) -> None:
    params = small(**AUGMENTED)
    expected = carry_out(job(params)).losses
    start = job(params, stop_after=stop_after)
    assert pair(job(params, state=carry_out(start).state)).losses == pytest.approx(
        expected, abs=1e-4
    )
    assert carry_out(job(params, state=pair(start).state)).losses == pytest.approx(
        expected, abs=1e-4
    )


def test_two_processes_repeat_bit_by_bit_also_when_resumed(pair: Pair) -> None:
    params = small(**SCHEDULED, **AUGMENTED, model__dropout=0.3)
    whole = pair(job(params))
    assert pair(job(params)).losses == whole.losses
    stopped = pair(job(params, stop_after=13))
    assert pair(job(params, state=stopped.state)).losses == whole.losses


def test_a_loss_that_is_not_finite_ends_both(pair: Pair) -> None:
    diverging = small(train__optimizer="sgd", train__learning_rate=1e30)
    assert "the loss became" in pair(job(diverging)).error
