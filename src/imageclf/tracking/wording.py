"""What MLflow's pages say of a run and of a version in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from imageclf.intervals import accuracy_told, percent

LONGEST_NAME = 250  # characters, MLflow's limit
MOST_TOLD = 20  # parameters or classes in a note
OF_NO_INTEREST = ("data.name", "model.name", "register.")  # the note tells them, or they name it


def run_name(
    params: Mapping[str, Any], experiment: str | None = None, accuracy: float | None = None
) -> str:
    """A short name, such as ``mlp lr 0.003 · 87.1 %``.

    Args:
        params: by dotted path.
        experiment: the name of the DVC experiment, which goes first.
        accuracy: on the test split, 0..1, once it is known.
    """
    network = f"{params.get('model.name')} lr {params.get('train.learning_rate')}"
    reached = None if accuracy is None else percent(accuracy)
    return " · ".join(filter(None, (experiment, network, reached)))[:LONGEST_NAME]


def run_note(
    params: Mapping[str, Any],
    base: Mapping[str, Any],
    images: Mapping[str, int],
    classes: int,
    correct: Sequence[bool],
    majority_accuracy: float,
) -> str:
    """What was trained on which data, how good it is and against what, in Markdown.

    Args:
        params: by dotted path.
        base: the parameters to compare them with; those that differ are named.
        images: their number by split.
        classes: their number.
        correct: whether the model is right, for each image of the test split.
        majority_accuracy: of always guessing the commonest class, 0..1.
    """
    data = f"{images['train']:,} images for training, {images['val']:,} for validation"
    lines = [
        f"{params.get('model.name')} on {params['data.name']}: {classes} classes, {data}.",
        f"Right on **{accuracy_told(sum(correct), len(correct))}**; always guessing the commonest "
        f"class has {percent(majority_accuracy)}.",
    ]
    changed = [
        f"`{name}` {value}"
        for name, value in params.items()
        if name in base and base[name] != value and not name.startswith(OF_NO_INTEREST)
    ]
    return "\n\n".join([*lines, f"Not as by default: {listed(changed)}."] if changed else lines)


def version_note(note: str, class_names: Sequence[str], decision: str, report: str) -> str:
    """The description of a version: that of its run, and what it gives, in Markdown.

    Args:
        note: of the run.
        class_names: in the order of the probabilities.
        decision: of the gate when it was registered.
        report: the address of the report, from the root of MLflow's pages.
    """
    classes = f"The probabilities are those of: {listed(class_names)}."
    told = f"Against the champion of that time: {decision}."
    return "\n\n".join([note, told, classes, f"[Report]({report})"]).strip()


def model_note(data: str, class_names: Sequence[str]) -> str:
    """The description of a registered model, in Markdown."""
    return (
        f"Classifies images like those of {data} as {listed(class_names)}. It takes uint8 "
        "images as they are in data/prepared, and gives a probability for each class.\n\n"
        "`champion` is the version to use, `challenger` the newest one."
    )


def listed(parts: Sequence[str]) -> str:
    """Parts in a row, of which the number of those beyond ``MOST_TOLD`` is told."""
    more = len(parts) - MOST_TOLD
    return ", ".join(parts[:MOST_TOLD]) + (f" and {more:,} more" if more > 0 else "")
