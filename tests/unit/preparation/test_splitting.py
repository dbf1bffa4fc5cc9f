import signal

import numpy as np
import pandas as pd
import pytest

from helpers.params import make_params
from imageclf.files import UserError
from imageclf.preparation.splitting import draw_splits, origins, stratified_choice

NAMES = ["a", "b", "c", "d"]


def choose(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int = 0) -> np.ndarray:
    return stratified_choice(labels, groups, fraction, np.random.default_rng(seed), NAMES)


def test_a_choice_takes_the_fraction_of_every_class_and_at_least_one() -> None:
    labels = np.array([0] * 100 + [1] * 10 + [2] * 2)
    chosen = choose(labels, np.arange(112), 0.1)
    assert np.bincount(labels[chosen]).tolist() == [10, 1, 1]


def test_a_class_that_cannot_be_split_is_named() -> None:
    with pytest.raises(UserError, match="class d has too few images"):
        choose(np.array([0, 0, 3]), np.arange(3), 0.5)
    with pytest.raises(UserError, match="class a has too few images, without copies .* one origin"):
        choose(np.array([0, 0, 0, 1, 1]), np.array([7, 7, 7, 8, 9]), 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_chosen_as_wholes_and_as_many_as_fit(seed: int) -> None:
    groups = np.repeat(np.arange(40), np.arange(40) % 5 + 1)
    labels = groups % 2
    chosen = choose(labels, groups, 0.3, seed)
    assert all(len(set(chosen[groups == group])) == 1 for group in range(40))
    for label in (0, 1):
        wanted = 0.3 * (labels == label).sum()
        assert wanted - 1 <= (chosen & (labels == label)).sum() <= wanted + 1


def test_where_no_group_fits_the_smallest_is_chosen() -> None:
    groups = np.repeat([0, 1, 2], [50, 30, 40])
    chosen = choose(np.zeros(120, dtype=np.int64), groups, 0.1)
    assert set(groups[chosen]) == {1}


def test_a_group_across_classes_is_on_one_side() -> None:
    labels = np.array([0, 1] * 20)
    groups = np.repeat(np.arange(20), 2)
    chosen = choose(np.append(labels, [1, 1, 1]), np.append(groups, [20, 21, 22]), 0.25)
    assert (chosen[0:40:2] == chosen[1:40:2]).all()


def test_splits_that_are_given_stay() -> None:
    given = np.array(["train"] * 20 + ["test"] * 5, dtype=object)
    splits = draw_splits(
        given, np.arange(25) % 2, np.arange(25), NAMES, make_params(transform__val_fraction=0.2)
    )
    assert splits[20:].tolist() == ["test"] * 5
    assert sorted(splits[:20]) == ["train"] * 16 + ["val"] * 4


def test_so_many_train_images_of_each_class_are_kept() -> None:
    given = np.array(["train"] * 50 + ["test"] * 10, dtype=object)
    labels = np.repeat([0, 1, 2], 20)

    def draw(seed: int) -> np.ndarray:
        params = make_params(seed=seed, transform__train_per_class=7)
        return draw_splits(given, labels, np.arange(60), NAMES, params)

    splits = draw(1)
    assert np.bincount(labels[splits == "train"]).tolist() == [7, 7, 7]
    assert np.bincount(labels[splits == "val"]).tolist() == [2, 2, 1]
    assert (splits[50:] == "test").all()
    assert (splits == draw(1)).all()
    assert (splits != draw(2)).any()
    everything = make_params(transform__train_per_class=100)
    assert "" not in draw_splits(given, labels, np.arange(60), NAMES, everything)


def test_a_pattern_that_searches_for_ages_is_stopped() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    names = pd.Series(["aab.png", "a" * 60 + ".png"])
    with pytest.raises(UserError, match=r"group_pattern: '\(a\+\)\+b' takes more than 1 s .*aaa"):
        origins(names, np.arange(2), "(a+)+b")
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    assert origins(names, np.arange(2), "a").tolist() == [0, 0]
