"""Batches of packed and of JPEG images: the same numbers, the same bits."""

import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.images import learnable_split, sharded
from helpers.params import make_params
from helpers.stopped_training import steps_of
from imageclf.data.batches import feeds, in_turn
from imageclf.data.prepared import Split, pixel_counts, shards_folder, stats_of
from imageclf.data.shards import JpegImages
from imageclf.evaluation.metrics import predict
from imageclf.files import UserError
from imageclf.network.classifier import build_classifier
from imageclf.training.augment import epoch_order
from imageclf.training.loop import Training

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> list[Split]:
    """Train and val in shards, with 330 and 100 images."""
    folder = tmp_path_factory.mktemp("prepared")
    parts = {"train": learnable_split(330, seed=0), "val": learnable_split(100, seed=1)}
    return [sharded(folder, name, part.images[:], part.labels) for name, part in parts.items()]


def unpacked(split: Split) -> Split:
    return Split(split.images[:], split.labels)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("size", [7, 64, 150])
def test_batches_decoded_by_workers_are_those_of_packed_pixels(
    splits: list[Split], workers: int, size: int
) -> None:
    order = epoch_order(330, seed=1, epoch=1)[20:]
    (jpeg,), (packed,) = feeds(splits[:1], CPU, workers), feeds([unpacked(splits[0])], CPU)
    pairs = list(zip(jpeg.batches(order, size), packed.batches(order, size), strict=True))
    assert len(pairs) == -(-310 // size)
    for (images, labels), (expected, right) in pairs:
        assert torch.equal(images, expected)
        assert torch.equal(labels, right)
    assert list(jpeg.batches(order[:0], size)) == []


def test_all_images_come_in_turn(splits: list[Split]) -> None:
    for split in (splits[0], unpacked(splits[0])):
        assert torch.equal(
            torch.cat(list(in_turn(split, 100, CPU))), torch.tensor(splits[0].images[:])
        )


def trained(splits: list[Split]) -> Training:
    params = make_params(model__hidden=[16], train__epochs=3, train__batch_size=20)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    stats = stats_of(pixel_counts(splits[0].images[:]))
    classifier = build_classifier(params.model, stats, splits[0].images.shape[1:], 4)
    return Training(params, classifier, *splits, classes=4)


def losses(training: Training) -> list[tuple[float, float]]:
    return [(result.train_loss, result.val_loss) for result in training.run()]


def test_a_training_on_shards_is_that_on_their_pixels_bit_by_bit(splits: list[Split]) -> None:
    on_shards, on_pixels = trained(splits), trained([unpacked(split) for split in splits])
    assert losses(on_shards) == losses(on_pixels)
    probabilities = [
        predict(on_shards.classifier, split).probabilities
        for split in (splits[1], unpacked(splits[1]))
    ]
    assert np.array_equal(*probabilities)


def test_a_training_on_shards_goes_on_in_the_middle_of_an_epoch(splits: list[Split]) -> None:
    expected = losses(trained(splits))
    resumed = trained(splits)
    resumed.restore(steps_of(trained(splits), 5))
    assert resumed.position.images == 100
    assert losses(resumed) == expected


def test_a_worker_that_dies_is_told(splits: list[Split]) -> None:
    others = multiprocessing.active_children()
    (feed,) = feeds(splits[:1], CPU, 1)
    batches = feed.batches(torch.arange(330).repeat(200), 64)
    next(batches)
    (worker,) = {*multiprocessing.active_children()} - {*others}
    worker.kill()
    with pytest.raises(UserError, match="a worker process died"):
        list(batches)


def test_few_images_are_decoded_ahead(splits: list[Split], tmp_path: Path) -> None:
    """However many batches there are, the results that wait are bounded."""
    asked = []

    class Counted(JpegImages):
        def __reduce__(self) -> Any:
            asked.append(self)  # a worker is to decode some of them
            return super().__reduce__()

    folder = shards_folder(tmp_path, "train")
    split = sharded(tmp_path, "train", splits[0].images[:], splits[0].labels)
    images = Counted(folder, split.images.shape[1:])
    (feed,) = feeds([Split(images, split.labels)], CPU, 2)
    batches = feed.batches(torch.arange(330).repeat(1000), 64)
    next(batches)
    time.sleep(1)  # in which hundreds of batches would be decoded
    assert 2 <= len(asked) <= 7
    batches.close()  # type: ignore[attr-defined]
