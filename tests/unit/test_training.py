import math

import pytest
import torch

from imageclf.classifier import Classifier, build_classifier
from imageclf.datasets import pixel_stats
from imageclf.files import UserError
from imageclf.params import Params
from imageclf.training import (
    EpochResult,
    Position,
    build_optimizer,
    epoch_order,
    measure,
    train,
)
from support import learnable_split, make_params

TRAIN, VAL = learnable_split(400, seed=0), learnable_split(100, seed=1)
# Epochs 1 to 4 of `small()` with seed 1 on the CPU with one thread: train loss, val loss.
GOLDEN = [(1.115137, 0.683697), (0.386054, 0.152884), (0.079222, 0.038651), (0.025776, 0.019112)]


def small(**changes: object) -> Params:
    settings = {"model__hidden": [16], "train__epochs": 4, "train__batch_size": 20}
    return make_params(**settings | changes)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def fresh(params: Params) -> Classifier:
    torch.manual_seed(params.seed)
    return build_classifier(params.model, pixel_stats(TRAIN.images), (8, 8), 4)


def run(params: Params) -> list[EpochResult]:
    return list(train(params, fresh(params), TRAIN, VAL))


def losses(results: list[EpochResult]) -> list[tuple[float, float]]:
    return [(result.train_loss, result.val_loss) for result in results]


def test_golden_loss_curve() -> None:
    curve = [value for pair in losses(run(small())) for value in pair]
    assert curve == pytest.approx([value for pair in GOLDEN for value in pair], rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
@pytest.mark.parametrize("loss", ["nll", "cross_entropy"])
def test_every_optimizer_learns_with_every_loss(optimizer: str, loss: str) -> None:
    output = {"nll": "log_softmax", "cross_entropy": "logits"}[loss]
    rate = 0.3 if optimizer == "sgd" else 0.01
    results = run(
        small(
            train__optimizer=optimizer,
            train__loss=loss,
            train__learning_rate=rate,
            model__output=output,
        )
    )
    assert results[-1].val_accuracy == 1
    assert results[-1].val_loss < results[0].val_loss


def test_nll_of_log_probabilities_is_cross_entropy_of_logits() -> None:
    as_nll = losses(run(small()))
    as_cross_entropy = losses(run(small(train__loss="cross_entropy", model__output="logits")))
    assert as_nll[-1] == pytest.approx(as_cross_entropy[-1], rel=1e-4)


def test_the_same_seed_repeats_bit_by_bit_and_another_does_not() -> None:
    assert losses(run(small())) == losses(run(small()))
    assert losses(run(small())) != losses(run(small(seed=2)))


def test_sgd_takes_the_step_of_the_textbook() -> None:
    params = small(train__optimizer="sgd", train__learning_rate=0.1)
    classifier = fresh(params)
    images, labels = torch.tensor(TRAIN.images[:20]), torch.tensor(TRAIN.labels[:20])
    optimizer = build_optimizer(params.train, classifier)
    torch.nn.functional.nll_loss(classifier(images), labels).backward()
    expected = [p.detach() - 0.1 * p.grad for p in classifier.parameters()]
    optimizer.step()
    for parameter, value in zip(classifier.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)


def test_means_are_taken_over_images_not_over_batches() -> None:
    params = small()
    classifier = fresh(params)
    split = learnable_split(1003, seed=3)
    images, labels = torch.tensor(split.images), torch.tensor(split.labels)
    loss, accuracy = measure(classifier, images, labels, torch.nn.functional.nll_loss)
    with torch.no_grad():
        output = classifier(images)
    assert loss == pytest.approx(torch.nn.functional.nll_loss(output, labels).item(), rel=1e-5)
    assert accuracy == pytest.approx((output.argmax(dim=1) == labels).double().mean().item())


def test_every_epoch_has_its_own_order() -> None:
    orders = [epoch_order(50, seed, epoch).tolist() for seed in (1, 2) for epoch in (1, 2)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    with pytest.raises(UserError, match="the loss became (nan|inf) in epoch 1.*learning_rate"):
        run(small(train__optimizer="sgd", train__learning_rate=1e30))


def test_progress_is_reported_within_the_epoch() -> None:
    positions: list[Position] = []
    params = small(train__epochs=1, train__batch_size=2)
    list(train(params, fresh(params), TRAIN, VAL, positions.append))
    assert [position.images for position in positions] == [100, 200, 300, 400]
    assert all(math.isfinite(position.train_loss) for position in positions)


def test_dropout_is_on_in_training_and_off_in_validation() -> None:
    params = small(model__dropout=0.5)
    classifier = fresh(params)
    assert len(list(train(params, classifier, TRAIN, VAL))) == 4
    assert not classifier.training
