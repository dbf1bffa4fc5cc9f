"""A training that is stopped in the middle."""

from contextlib import suppress
from typing import Any

from torch import Tensor

from imageclf.training.loop import Training


class StopError(Exception):
    """Ends a training in the middle."""


def stop_after(training: Training, steps: int) -> None:
    """Let the training end after some optimisation steps."""
    take, left = training.learner.step, [steps]

    def counted(*batch: Any) -> Tensor:
        if left[0] == 0:
            raise StopError
        left[0] -= 1
        return take(*batch)

    training.learner.step = counted  # type: ignore[method-assign]


def steps_of(training: Training, steps: int) -> dict[str, Any]:
    """The state after some optimisation steps: in the middle of an epoch or at its very end."""
    stop_after(training, steps)
    with suppress(StopError):
        list(training.run())
    return training.state()
