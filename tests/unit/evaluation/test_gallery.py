from pathlib import Path

import numpy as np
import pandas as pd

from imageclf.evaluation.gallery import (
    Confusion,
    Gallery,
    Rows,
    confusions,
    least_sure,
    most_confused,
    random_right,
    read_rows,
    worst,
)
from imageclf.evaluation.metrics import Predictions

LABELS = np.array([0, 0, 0, 1, 1, 2])
PROBABILITIES = [
    [0.8, 0.1, 0.1],
    [0.1, 0.8, 0.1],  # 0 taken for 1
    [0.05, 0.9, 0.05],  # likewise, and surer
    [0.1, 0.5, 0.4],
    [0.0, 0.1, 0.9],  # 1 taken for 2
    [0.2, 0.2, 0.6],
]
PREDICTIONS = Predictions(np.array(PROBABILITIES, dtype=np.float32), LABELS)


def test_rows_are_those_of_the_test_split_in_their_order(tmp_path: Path) -> None:
    rows = {
        "name": ["a", "b", "c", "d", "e"],
        "split": ["test", "train", "test", "", "test"],
        "same_as": ["a", "b", "b", "d", "a"],
    }
    pd.DataFrame(rows).to_parquet(tmp_path / "manifest.parquet")
    found = read_rows(tmp_path / "manifest.parquet")
    assert found.names == ["a", "c", "e"]
    assert found.same.tolist() == [0, 1, 0]


def test_mistakes_are_ordered_by_their_loss_and_grouped_by_classes() -> None:
    assert worst(PREDICTIONS).tolist() == [2, 1, 4]
    first, second = confusions(PREDICTIONS)
    assert (first.actual, first.predicted, first.images.tolist()) == (0, 1, [2, 1])
    assert (second.actual, second.predicted, second.images.tolist()) == (1, 2, [4])
    assert confusions(Predictions(np.eye(3, dtype=np.float32), np.arange(3))) == []


def test_the_least_sure_image_has_the_closest_classes() -> None:
    assert least_sure(PREDICTIONS)[:2].tolist() == [3, 5]


def test_right_images_are_drawn_by_the_seed() -> None:
    drawn = random_right(PREDICTIONS, seed=1).tolist()
    assert sorted(drawn) == [0, 3, 5]
    assert drawn == random_right(PREDICTIONS, seed=1).tolist()


def test_the_classes_of_the_strongest_confusions_are_chosen() -> None:
    none = np.array([], dtype=np.int64)
    found = [Confusion(7, 2, none), Confusion(2, 9, none), Confusion(4, 5, none)]
    assert most_confused(found, 10, 4) == [2, 7, 9]
    assert most_confused(found, 4, 4) == [0, 1, 2, 3]
    assert most_confused([], 10, 4) == []


def test_every_confusion_has_an_image_before_any_has_two_and_all_fit_the_room() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1)).astype(np.uint8)
    gallery = Gallery(images, Rows([*"abcdef"], np.arange(6)), PREDICTIONS, ["x", "y", "z"])
    orders = [each.images for each in confusions(PREDICTIONS)]

    def shown(room: int) -> list[str]:
        return ["".join(each.name for each in some) for some in gallery.show_each(orders, 8, room)]

    assert shown(100_000) == ["cb", "e"]
    size = len(gallery.show(orders[0], 1)[0].address)
    assert shown(size + 1) == ["c", "e"]
    assert shown(1) == ["c", ""]
