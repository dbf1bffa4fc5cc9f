import re
from typing import Any

import numpy as np
import pytest

from helpers.classifiers import description
from imageclf.evaluation import verdict as rules
from imageclf.evaluation.curves import Reliability
from imageclf.evaluation.verdict import Evidence, next_steps, verdict, warnings
from imageclf.params import known_keys

NAMES = ["Shirt", "Coat", "Bag"]
EVEN = [[90, 5, 5], [5, 90, 5], [5, 5, 90]]


def history(train: list[float], val: list[float], accuracy: float = 0.95) -> list[dict[str, float]]:
    """Rows of these losses, with one accuracy for all."""
    return [
        {
            "epoch": epoch,
            "train_loss": losses[0],
            "val_loss": losses[1],
            "train_accuracy": accuracy,
            "val_accuracy": accuracy,
        }
        for epoch, losses in enumerate(zip(train, val, strict=True), start=1)
    ]


FLAT = history([0.3, 0.2, 0.2, 0.2], [0.3, 0.2, 0.2, 0.2])


def evidence(
    matrix: list[list[int]] = EVEN, excess: float = 0.0, epoch: int = 4, **changes: Any
) -> Evidence:
    """Of a model that no rule has anything to say against, but for the changes."""
    counts = np.array(matrix)
    accuracy = counts.trace() / counts.sum()
    values = {
        "figures": {
            "accuracy": accuracy,
            "accuracy_low": accuracy - 0.1,
            "majority_accuracy": 0.3,
            "images": int(counts.sum()),
            "temperature": 1.0,
        },
        "description": description(class_names=NAMES, epoch=epoch),
        "history": FLAT,
        "matrix": counts,
        "train_counts": np.array([100, 100, 100]),
        "reliability": Reliability(
            np.array([accuracy + excess]), np.array([accuracy]), np.array([1.0])
        ),
        "class_weights": "none",
    }
    return Evidence(**values | changes)


BY_HEART = history([0.5, 0.4, 0.3, 0.2], [0.5, 0.4, 0.42, 0.5])
LEARNS = history([0.5, 0.4, 0.3, 0.2], [0.5, 0.4, 0.3, 0.2])
UNLEARNT = history([0.9, 0.8, 0.8, 0.8], [0.9, 0.8, 0.8, 0.8], accuracy=0.7)
WEAK = [[60, 30, 10], [5, 90, 5], [5, 5, 90]]
MANY = (100 * np.array(EVEN)).tolist()
RARE = {"train_counts": np.array([20, 100, 100]), "matrix": np.array([[8, 1, 1], *EVEN[1:]])}

FIRES = [
    ("learns_by_heart", {"history": BY_HEART}, "from epoch 3 on: the val loss rises from 0.400"),
    ("learns_still", {"history": LEARNS}, "lowest after the last of 4 epochs"),
    ("learns_too_little", {"history": UNLEARNT}, "70.0 % of them are right"),
    ("weakest_class", {"matrix": WEAK}, "Shirt is the weakest class: 30 of 100 are taken for Coat"),
    ("rarest_class", RARE, "20 train images of Shirt, 100 of Coat"),
    ("confidence", {"matrix": MANY, "excess": 0.05}, "95.0 % sure on average, and 90.0 % right"),
    ("few_test_images", {"matrix": [[20, 3, 3], [3, 20, 3], [3, 3, 20]]}, "only 78 test images"),
]


@pytest.mark.parametrize(("rule", "changes", "told"), FIRES)
def test_a_rule_fires_where_it_should(rule: str, changes: dict[str, Any], told: str) -> None:
    advice = getattr(rules, rule)(evidence(**changes))
    assert told in advice.found
    assert advice in [*next_steps(evidence(**changes))]


@pytest.mark.parametrize("rule", [rule for rule, _, _ in FIRES])
def test_no_rule_fires_without_a_reason(rule: str) -> None:
    assert getattr(rules, rule)(evidence()) is None


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("learns_by_heart", {"history": BY_HEART, "epoch": 2}),  # train.patience kept the best
        ("learns_by_heart", {"history": LEARNS}),
        ("learns_by_heart", {"history": history([0.2] * 4, [0.4, 0.3, 0.5, 0.5])}),
        ("learns_still", {"history": BY_HEART}),
        ("learns_still", {"history": history([0.5], [0.5])}),  # one epoch, or two, tell little
        ("learns_still", {"history": history([0.5, 0.4], [0.5, 0.4])}),
        ("learns_still", {"history": history([0.4] * 4, [0.4, 0.4, 0.399, 0.398])}),
        ("learns_too_little", {"history": history([0.9, 0.5, 0.4], [0.9, 0.5, 0.4], 0.7)}),
        ("weakest_class", {"matrix": [[88, 7, 5], [5, 90, 5], [5, 5, 90]]}),  # by chance
        ("weakest_class", {"matrix": [[0, 0, 0], [5, 90, 5], [5, 5, 90]]}),  # not in test
        ("rarest_class", RARE | {"class_weights": "balanced"}),
        ("rarest_class", {"train_counts": np.array([20, 100, 100])}),  # rare, and no worse
        ("confidence", {"matrix": MANY, "excess": 0.02}),
        ("confidence", {"excess": 0.04}),  # with 300 images chance gives as much
        ("confidence", {"matrix": MANY, "excess": -0.05}),
    ],
)
def test_a_rule_is_silent_where_it_should(rule: str, changes: dict[str, Any]) -> None:
    changes = {"epoch": len(changes.get("history", FLAT))} | changes
    assert getattr(rules, rule)(evidence(**changes)) is None


def test_the_advice_names_parameters_and_commands_that_exist() -> None:
    from imageclf.cli import main

    named = set()
    for rule, changes, _ in FIRES:
        advice = getattr(rules, rule)(evidence(**changes))
        named |= set(re.findall(r"`([^`]+)`", advice.todo))
    parameters = {text.partition(":")[0] for text in named if "." in text}
    commands = {text.removeprefix("imageclf ") for text in named if text.startswith("imageclf ")}
    assert parameters <= {*known_keys()}
    assert commands == {"suspects", "rate"}
    assert commands <= {*main.list_commands(None)}
    assert len(parameters) >= 7


def test_the_verdict_gives_the_accuracy_with_its_interval_in_plain_words() -> None:
    assert verdict(evidence()) == (
        "90.0 % of the 300 test images are right. On other images of the same kind expect 84.6 to "
        "93.6 % (99 % confidence). Always guessing the commonest class gives 30.0 %."
    )


def test_a_model_at_chance_level_is_called_so() -> None:
    figures = {"accuracy": 0.52, "accuracy_low": 0.46, "majority_accuracy": 0.5, "images": 300}
    (warning,) = warnings(evidence(figures=figures))
    assert "not clearly better than always guessing" in warning
    assert not [*warnings(evidence(figures=figures | {"accuracy_low": 0.51}))]


COLOUR = {"image_shape": [64, 64, 3], "mean": [0.4] * 3, "std": [0.2] * 3}


@pytest.mark.parametrize(
    ("changes", "train_images", "told"),
    [
        (COLOUR, 1999, True),
        (COLOUR, 2000, False),
        ({}, 1999, False),  # grey, as MNIST is
        (COLOUR | {"weights": {"title": "ImageNet's", "sha256": "a" * 64}}, 1999, False),
    ],
)
def test_few_photographs_without_a_pretrained_backbone_are_told(
    changes: dict[str, Any], train_images: int, told: bool
) -> None:
    counts = np.array([train_images, 0, 0])
    found = [*warnings(evidence(description=description(**changes), train_counts=counts))]
    assert len(found) == told
    assert all("1,999 photographs" in each and "imageclf use my_photos" in each for each in found)
