import io
import math
from typing import Any

import numpy as np
import pytest
import torch

from helpers.images import learnable_split
from helpers.small_training import TRAIN, VAL, fresh, small, training
from helpers.stopped_training import steps_of
from imageclf.data.prepared import Split, pixel_counts, stats_of
from imageclf.files import UserError
from imageclf.network.classifier import Classifier, build_classifier, evaluation_batch
from imageclf.params import Params
from imageclf.training.augment import epoch_order
from imageclf.training.learner import measure
from imageclf.training.loop import STEPS_BETWEEN_REPORTS, EpochResult, Position, Training
from imageclf.training.losses import build_loss, image_count

# A tenth of its labels are wrong, so that certainty is punished in the end.
HARD_VAL = Split(VAL.images, np.where(np.arange(100) % 10 == 0, 0, VAL.labels))
# Epochs 1 to 4 of `small()` with seed 1 on the CPU with one thread: train loss, val loss.
GOLDEN = [(1.115137, 0.683697), (0.386054, 0.152884), (0.079222, 0.038651), (0.025776, 0.019112)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run(params: Params) -> list[EpochResult]:
    return list(training(params).run())


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


def test_means_are_taken_over_images_not_over_batches() -> None:
    params = small()
    classifier = fresh(params)
    split = learnable_split(1003, seed=3)
    images, labels = torch.tensor(split.images), torch.tensor(split.labels)
    loss, accuracy = measure(
        classifier, [(images, labels)], torch.nn.functional.nll_loss, image_count
    )
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
    list(training(params).run(positions.append))
    assert [position.images for position in positions] == [100, 200, 300, 400]
    assert all(math.isfinite(position.train_loss) for position in positions)


BUSY = {
    "model__dropout": 0.3,
    "augment__shift": 1,
    "augment__mixup": 0.3,
    "train__ema": 0.9,
    "train__schedule": "one_cycle",
    "train__patience": 3,
    "train__clip_gradient": 1.0,
    "train__momentum": 0.9,
    "train__optimizer": "sgd",
}


@pytest.mark.parametrize("changes", [{}, BUSY], ids=["plain", "busy"])
@pytest.mark.parametrize("stop_after", [0, 1, 50, 100, 150, 350, 400])
def test_a_resumed_training_is_the_uninterrupted_one_bit_by_bit(
    changes: dict[str, Any], stop_after: int
) -> None:
    params = small(train__batch_size=4, **changes)
    whole = training(params)
    expected = losses(list(whole.run()))
    first = training(params)
    stopped = steps_of(first, stop_after)
    torch.manual_seed(99)  # another process has another generator
    resumed = training(params)
    resumed.restore(round_trip(stopped))
    list(resumed.run())
    assert losses(resumed.history) == expected
    for ours, theirs in zip(
        resumed.classifier.state_dict().values(),
        whole.classifier.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("changes", [{}, BUSY], ids=["plain", "busy"])
def test_a_resume_after_the_last_step_of_an_epoch_begins_with_validation(
    changes: dict[str, Any],
) -> None:
    params = small(train__batch_size=4, **changes)
    whole = training(params)
    saved = []

    def save_at_the_end(position: Position) -> None:
        if position.images == len(TRAIN):
            saved.append(round_trip(whole.state()))

    expected = losses(list(whole.run(save_at_the_end)))
    assert len(saved) == params.train.epochs
    for state in saved:
        resumed = training(params)
        resumed.restore(state)
        list(resumed.run())
        assert losses(resumed.history) == expected


def round_trip(state: dict[str, Any]) -> dict[str, Any]:
    """Through a checkpoint file, which takes nothing that would need unpickling."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_slow_steps_are_reported_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imageclf.training.loop.SECONDS_BETWEEN_REPORTS", 0.0)
    slow = training(small(train__epochs=1))
    positions: list[Position] = []
    next(slow.run(positions.append))
    assert len(positions) == slow.steps_per_epoch < STEPS_BETWEEN_REPORTS


def batches(split: Split) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """As a training takes them to validate."""
    size = evaluation_batch(split.images.shape[1:])
    images, labels = torch.tensor(split.images[:]), torch.tensor(split.labels)
    return list(zip(images.split(size), labels.split(size), strict=True))


@pytest.mark.parametrize("loss", ["nll", "mse"])
def test_weighted_means_do_not_depend_on_the_batches(loss: str) -> None:
    """The images of a folder come class by class, so that a batch may hold but one."""
    output = {"nll": "log_softmax", "mse": "softmax"}[loss]
    params = small(train__loss=loss, model__output=output, train__class_weights="balanced")
    labels = np.sort(np.minimum(np.arange(300) % 8, 3))  # the last class five times as often
    sorted_split = Split(learnable_split(300, seed=5).images, labels)
    weighted = Training(params, fresh(params), sorted_split, sorted_split, classes=4)
    result = next(weighted.run())
    classifier, target = weighted.classifier.eval(), torch.tensor(labels)
    with torch.no_grad():
        output_of_all = classifier(torch.tensor(sorted_split.images))
    whole = build_loss(params.train, target, 4)(output_of_all, target)
    assert result.val_loss == pytest.approx(whole.item(), rel=1e-5)


def test_a_last_image_alone_waits_for_another_epoch() -> None:
    """Batch norm can make nothing of one image: it has no variance."""
    params = small(model__name="resnet18", transform__image_size=32, train__batch_size=16)
    split = learnable_split(33, seed=0, side=32)
    odd = Training(params, fresh(params), split, split, classes=4)
    positions: list[Position] = []
    result = next(odd.run(positions.append))
    assert (odd.steps_per_epoch, odd.images_per_epoch, odd.train_images) == (2, 32, 33)
    assert math.isfinite(result.val_loss)


def test_early_stopping_keeps_the_best_epoch() -> None:
    params = small(train__epochs=50, train__patience=2, train__learning_rate=0.02)
    stopped = Training(params, fresh(params), learnable_split(40, seed=4), HARD_VAL, classes=4)
    results = list(stopped.run())
    best = min(results, key=lambda result: result.val_loss)
    assert len(results) == best.epoch + 2 < 50
    assert stopped.best_epoch == best.epoch
    assert stopped.stopped_early
    loss, _ = measure(
        stopped.classifier, batches(HARD_VAL), torch.nn.functional.nll_loss, image_count
    )
    assert loss == best.val_loss


def test_averaged_weights_are_measured_and_kept() -> None:
    averaged = training(small(train__ema=0.99))
    results = list(averaged.run())
    assert losses(results) != losses(run(small()))
    loss, _ = measure(averaged.classifier, batches(VAL), torch.nn.functional.nll_loss, image_count)
    assert loss == results[-1].val_loss


def test_the_average_of_a_short_training_is_no_longer_at_its_beginning() -> None:
    results = list(training(small(train__ema=0.999)).run())
    assert results[-1].val_accuracy > 0.9


def test_a_long_gradient_is_clipped() -> None:
    params = small(train__optimizer="sgd", train__learning_rate=1.0, train__clip_gradient=1e-3)
    clipped = training(params)
    before = [value.clone() for value in clipped.classifier.parameters()]
    steps_of(clipped, 1)
    moved = [new - old for new, old in zip(clipped.classifier.parameters(), before, strict=True)]
    assert torch.cat([move.flatten() for move in moved]).norm().item() == pytest.approx(
        1e-3, rel=1e-3
    )


def test_the_trial_step_leaves_the_training_as_it_was() -> None:
    tried = training(small(**BUSY))
    before, after = tried.trial_step()
    assert before == pytest.approx(math.log(4), rel=0.5)
    assert after < before
    assert losses(list(tried.run())) == losses(run(small(**BUSY)))


BEGUN = {"model__weights": "a/path", "model__name": "resnet", "model__width": 4, "model__depth": 1}
FROZEN = {**BEGUN, "model__freeze": "backbone", "model__dropout": 0.3, "model__head": [8]}


def backbone(training: Training) -> dict[str, torch.Tensor]:
    """The weights and batch norm of its backbone, as they are now."""
    assert isinstance(training.classifier, Classifier)
    state = training.classifier.network.backbone.state_dict()
    return {name: value.clone() for name, value in state.items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, two[name]) for name, value in one.items())


def large(**changes: object) -> Params:
    return small(transform__image_size=28, **changes)


def test_a_frozen_backbone_stays_as_it_is_and_the_head_learns() -> None:
    frozen = training(large(**FROZEN, augment__shift=1, train__epochs=3))
    before = backbone(frozen)
    results = list(frozen.run())
    assert same(before, backbone(frozen))
    assert results[-1].train_loss < results[0].train_loss


def test_then_the_backbone_learns_too() -> None:
    params = large(**BEGUN, model__freeze="then", train__head_epochs=2, train__epochs=3)
    both = training(params)
    states = [backbone(both), *(backbone(both) for _ in both.run())]
    assert same(states[0], states[1])
    assert same(states[0], states[2])
    assert not same(states[0], states[3])


def test_patience_waits_for_the_backbone() -> None:
    never_better = {"train__learning_rate": 1e-30, "train__patience": 1}
    phases = {"model__freeze": "then", "train__head_epochs": 4, "train__epochs": 9}
    params = small(model__weights="a/path", **never_better | phases)
    assert len(list(training(params).run())) == 4 + 1


def test_a_pretrained_backbone_learns_at_a_rate_of_its_own() -> None:
    slow = training(large(**BEGUN, train__backbone_rate=0.01, train__optimizer="adam"))
    before = {name: value.clone() for name, value in slow.classifier.named_parameters()}
    steps_of(slow, 1)
    moved = {
        name: (value - before[name]).abs().max().item()
        for name, value in slow.classifier.named_parameters()
    }
    # The first step of Adam is as long as the rate, whatever the gradient.
    rate = slow.params.train.learning_rate
    for name, distance in moved.items():
        factor = 0.01 if "backbone" in name else 1
        assert distance == pytest.approx(rate * factor, rel=0.02), name


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "sizes"), [(20, 4, {4, 6}), (20, 64, {4}), (5, 4, {5})]
)
def test_accumulation_computes_a_batch_in_parts_of_three_images_at_least(
    batch_size: int, accumulate: int, sizes: set[int]
) -> None:
    parts = training(small(train__batch_size=batch_size, train__accumulate=accumulate))
    seen = []
    parts.classifier.network.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    steps_of(parts, 1)
    assert set(seen) == sizes
    assert sum(seen) == batch_size


def test_a_training_in_parts_is_resumed_bit_by_bit() -> None:
    params = small(train__accumulate=3, model__dropout=0.3, augment__policy="trivialaugment")
    whole = training(params)
    expected = losses(list(whole.run()))
    stopped = steps_of(training(params), 30)
    resumed = training(params)
    resumed.restore(round_trip(stopped))
    list(resumed.run())
    assert losses(resumed.history) == expected
    assert same(whole.classifier.state_dict(), resumed.classifier.state_dict())


def test_a_training_that_skips_blocks_is_resumed_bit_by_bit() -> None:
    split = learnable_split(40, seed=0, side=32)
    settings = {"model__name": "timm/test_convnext", "transform__image_size": 32}

    def begun(drop_path: object) -> Training:
        params = small(**settings, model__drop_path=drop_path, train__epochs=2)
        torch.manual_seed(params.seed)
        classifier = build_classifier(
            params.model, stats_of(pixel_counts(split.images)), (32, 32, 1), 4
        )
        return Training(params, classifier, split, split, classes=4)

    whole = begun(0.5)
    expected = losses(list(whole.run()))
    stopped = steps_of(begun(0.5), 3)  # of two in each epoch
    torch.manual_seed(99)  # another process has another generator
    resumed = begun(0.5)
    resumed.restore(round_trip(stopped))
    list(resumed.run())
    assert losses(resumed.history) == expected
    assert same(whole.classifier.state_dict(), resumed.classifier.state_dict())
    assert losses(list(begun("auto").run())) != expected


@pytest.mark.parametrize("stop_after", [10, 39, 40, 41, 50, 60])
def test_both_parts_of_then_are_resumed_bit_by_bit(stop_after: int) -> None:
    params = large(
        **BEGUN, model__freeze="then", train__head_epochs=2, train__epochs=3, train__ema=0.9
    )
    whole = training(params)
    expected = losses(list(whole.run()))
    stopped = steps_of(training(params), stop_after)
    resumed = training(params)
    resumed.restore(round_trip(stopped))
    list(resumed.run())
    assert losses(resumed.history) == expected
    assert same(whole.classifier.state_dict(), resumed.classifier.state_dict())


def on_features(params: Params) -> tuple[Training, Classifier]:
    """A training of a head on the features of its backbone, and the classifier it is part of."""
    classifier = fresh(params).eval()
    with torch.no_grad():
        splits = [
            Split(classifier.features(torch.tensor(split.images)).numpy(), split.labels)
            for split in (TRAIN, VAL)
        ]
    return Training(params, classifier.network.head, *splits, classes=4), classifier


def test_a_head_on_features_learns_what_it_learns_on_images() -> None:
    params = large(**FROZEN | {"model__dropout": 0.0})
    head, classifier = on_features(params)
    images = training(params)
    before = backbone(images)
    results = losses(list(head.run()))
    expected = losses(list(images.run()))
    assert np.array(results) == pytest.approx(np.array(expected), rel=1e-4)
    assert same(before, classifier.network.backbone.state_dict())
    # And the whole network, on raw images, is what was measured on features.
    loss, accuracy = measure(
        classifier,
        [(torch.tensor(VAL.images), torch.tensor(VAL.labels))],
        torch.nn.functional.nll_loss,
        image_count,
    )
    assert loss == pytest.approx(results[-1][1], rel=1e-4)
    assert accuracy == pytest.approx(head.history[-1].val_accuracy, abs=0.011)


@pytest.mark.parametrize("stop_after", [0, 7, 20, 55])
def test_a_head_on_features_is_resumed_bit_by_bit(stop_after: int) -> None:
    params = large(**FROZEN, train__ema=0.9, train__patience=2)
    whole, _ = on_features(params)
    expected = losses(list(whole.run()))
    stopped = steps_of(on_features(params)[0], stop_after)
    resumed, _ = on_features(params)
    resumed.restore(round_trip(stopped))
    list(resumed.run())
    assert losses(resumed.history) == expected
    assert same(whole.classifier.state_dict(), resumed.classifier.state_dict())


def test_the_checks_before_a_training_work_on_features() -> None:
    head, _ = on_features(large(**FROZEN))
    before, after = head.trial_step()
    assert after < before
