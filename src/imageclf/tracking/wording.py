"""What MLflow's pages say of a run and of a version in words."""

from collections.abc import Mapping
from typing import Any

from imageclf.intervals import percent

LONGEST_NAME = 250  # characters, MLflow's limit


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
