"""A range test of the learning rate: it rises from step to step, and the loss shows what it does.

Smith (2017), https://arxiv.org/abs/1506.01186, section 3.3; the smoothing and the limit at which
the test ends are those of fastai.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, count

from imageclf.files import UserError
from imageclf.training.loop import Training

LOW, HIGH, STEPS = 1e-6, 10.0, 120
SMOOTHING, DIVERGED = 0.9, 4.0  # DIVERGED times the lowest smoothed loss ends the test
# The loss is lowest just below the rate at which a training diverges.
BELOW_LOWEST = 10


@dataclass(frozen=True)
class RateCurve:
    """The result of a range test.

    Attributes:
        rates: the learning rate of each step.
        losses: the mean loss of each batch before the step.
        smoothed: the exponential average of ``losses``, without the bias of its start.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]

    @property
    def lowest(self) -> int:
        """The step at which the smoothed loss is lowest."""
        return min(range(len(self.smoothed)), key=self.smoothed.__getitem__)

    @property
    def suggestion(self) -> float:
        """A rate to begin with: a tenth of the one at which the smoothed loss is lowest.

        Raises:
            UserError: the loss never fell.
        """
        if self.smoothed[self.lowest] > 0.98 * self.smoothed[0]:
            raise UserError("the loss fell at no learning rate: look at the labels and the network")
        return self.rates[self.lowest] / BELOW_LOWEST


def range_test(step: Callable[[float], float]) -> RateCurve:
    """Take steps at rates that rise geometrically from ``LOW`` to ``HIGH``, or until it diverges.

    ``step`` takes a step at a rate, and returns the loss of its batch before it.

    Raises:
        UserError: the loss is not finite before the first step.
    """
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    for number in range(STEPS):
        rates.append(LOW * (HIGH / LOW) ** (number / (STEPS - 1)))
        losses.append(step(rates[-1]))
        average = SMOOTHING * average + (1 - SMOOTHING) * losses[-1]
        smoothed.append(average / (1 - SMOOTHING ** (number + 1)))
        if not math.isfinite(losses[-1]) or smoothed[-1] > DIVERGED * min(smoothed):
            if not number:
                raise UserError(
                    f"the loss is {losses[0]} before the first step, so no learning rate helps: "
                    "look at model.init, model.normalize and the weights"
                )
            rates, losses, smoothed = (each[:-1] for each in (rates, losses, smoothed))
            break
    return RateCurve(rates, losses, smoothed)


def find_rate(training: Training, advance: Callable[[int], None] = lambda _: None) -> RateCurve:
    """The range test of a training before its first step, which is not of use afterwards.

    ``advance`` is called with the images of each step.
    """
    batches = chain.from_iterable(map(training.batches, count(1)))
    numbers = count()

    def step(rate: float) -> float:
        batch = next(batches)
        loss = training.step_at(rate, batch, next(numbers))
        advance(batch[2])
        return loss

    return range_test(step)
