"""Proportions, such as accuracies: their confidence intervals, and how they are told."""

import math

Z = 2.5758293035489  # of the normal distribution: 99 %, two-sided


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The ends of the 99 % score interval of a proportion (Wilson 1927)."""
    p, z2 = successes / trials, Z**2
    centre = p + z2 / (2 * trials)
    spread = Z * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    return (centre - spread) / (1 + z2 / trials), (centre + spread) / (1 + z2 / trials)


def percent(share: float) -> str:
    """A share as text, such as ``87.1 %``."""
    return f"{share:.1%}".replace("%", " %")


def accuracy_told(right: int, images: int) -> str:
    """Such as ``87.1 % of 10,000 test images (86.2 to 87.9 % with 99 % confidence)``."""
    if not images:
        return "no test images"
    low, high = (percent(end) for end in wilson(right, images))
    of = f"{percent(right / images)} of {images:,} test images"
    return f"{of} ({low.removesuffix(' %')} to {high} with 99 % confidence)"
