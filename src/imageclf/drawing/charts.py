"""Line charts as SVG within a page: their colours are the page's, so they follow light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 330, 210  # of the plot, without the room for its labels
LEFT, RIGHT, TOP, BOTTOM = 44, 20, 8, 38


@dataclass(frozen=True)
class Series:
    """Points in one colour.

    Attributes:
        name: in the legend; empty for none.
        colour: a variable of the page's style, such as ``blue``.
        form: ``line``, ``dashed``, ``dots``, or ``area``, which is filled down to the axis.
        radius: of dots, one for all or one for each.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    colour: str = "blue"
    form: str = "line"
    radius: ArrayLike = 4.0


@dataclass(frozen=True)
class Axis:
    """A range, a label (below a chart alone), and whether numbers are percentages."""

    low: float = 0.0
    high: float = 1.0
    label: str = ""
    percent: bool = False
    whole: bool = False

    def ticks(self) -> list[tuple[float, str]]:
        """Round numbers within the range, whole ones if asked for, with their text."""
        from matplotlib.ticker import MaxNLocator

        values = MaxNLocator(5, steps=[1, 2, 5, 10], integer=self.whole).tick_values(
            self.low, self.high
        )
        shown = [float(value) for value in values if self.low <= value <= self.high]
        return [
            (value, f"{100 * value:.6g}%" if self.percent else f"{value:.6g}") for value in shown
        ]

    def place(self, values: ArrayLike, length: float) -> NDArray[np.float64]:
        """Values as distances from the low end of an axis of that length, within it."""
        share = (np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low)
        return share.clip(0, 1) * length


def chart(title: str, series: Sequence[Series], x: Axis, y: Axis) -> Markup:
    """A ``<figure>`` with the chart, its title above and its legend below it."""
    box = f"{-LEFT} {-TOP} {WIDTH + LEFT + RIGHT} {HEIGHT + TOP + BOTTOM}"
    legend = "".join(
        f'<span><i class="{each.form}" style="color: var(--{each.colour})"></i>'
        f"{escape(each.name)}</span>"
        for each in series
        if each.name
    )
    drawn = "".join(_drawn(each, x, y) for each in series)
    return Markup(  # noqa: S704 (every text in it is escaped)
        f'<figure class="chart"><h3>{escape(title)}</h3>'
        f'<svg viewBox="{box}" role="img" aria-label="{escape(title)}">{_axes(x, y)}{drawn}</svg>'
        f"<figcaption>{legend}</figcaption></figure>"
    )


def _axes(x: Axis, y: Axis) -> str:
    parts = []
    for value, text in y.ticks():
        height = HEIGHT - y.place(value, HEIGHT)
        parts.append(f'<path class="grid" d="M0 {height:.1f}H{WIDTH}"/>')
        parts.append(f'<text x="-6" y="{height + 4:.1f}" text-anchor="end">{text}</text>')
    for value, text in x.ticks():
        left = x.place(value, WIDTH)
        parts.append(f'<path class="grid" d="M{left:.1f} {HEIGHT}v4"/>')
        parts.append(f'<text x="{left:.1f}" y="{HEIGHT + 17}" text-anchor="middle">{text}</text>')
    parts.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT + 33}" text-anchor="middle">{escape(x.label)}</text>'
    )
    return "".join(parts)


def _drawn(series: Series, x: Axis, y: Axis) -> str:
    left, top = x.place(series.x, WIDTH), HEIGHT - y.place(series.y, HEIGHT)
    style = f'class="{series.form}" style="color: var(--{series.colour})"'
    if series.form == "dots":
        radius = np.broadcast_to(series.radius, left.shape)
        dots = "".join(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{r:.1f}"/>'
            for a, b, r in zip(left, top, radius, strict=True)
        )
        return f"<g {style}>{dots}</g>"
    # To half a pixel: what falls together is written once.
    points = dict.fromkeys(zip((left * 2).round() / 2, (top * 2).round() / 2, strict=True))
    line = "L".join(f"{a:g} {b:g}" for a, b in points)
    closed = f"V{HEIGHT}H{left[0]:g}z" if series.form == "area" else ""
    return f'<path {style} d="M{line}{closed}"/>'
