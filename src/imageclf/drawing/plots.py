"""Every figure, drawn with matplotlib's object interface: no global state, no display."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from imageclf.files import atomic_path
from imageclf.text import printable

if TYPE_CHECKING:
    import pandas as pd

TRAIN, VAL, RIGHT, WRONG = "#4878a8", "#d1605e", "#3a7d44", "#b8312f"
GREY, PALE = "#555555", "#b9cbdd"
BARS = 10
LONGEST_TITLE = 32


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on the figure alone; glyphs that the font lacks are boxes."""
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def loss_curves(history: "pd.DataFrame") -> Figure:
    """Loss and accuracy of train and val by epoch, with the best epoch marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for split, colour in (("train", TRAIN), ("val", VAL)):
            points = history[f"{split}_{quantity}"]
            axes.plot(history["epoch"], points, "o-", color=colour, ms=3, label=split)
        axes.set(xlabel="epoch", title=quantity.capitalize())
        axes.xaxis.get_major_locator().set_params(integer=True)
        _tidy(axes)
    accuracy.legend(frameon=False)
    best = history.loc[history["val_loss"].idxmin()]
    label = f"lowest val loss, epoch {best['epoch']:.0f}"
    loss.plot(best["epoch"], best["val_loss"], "o", ms=9, mfc="none", color=GREY, label=label)
    loss.legend(frameon=False)
    return figure


def rate_curve(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestion: float,
    now: float,
) -> Figure:
    """The loss by learning rate of a range test, with the rate that it suggests and today's."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, ".", color=PALE, label="loss of a batch")
    axes.plot(rates, smoothed, color=TRAIN, label="smoothed")
    axes.axvline(suggestion, color=RIGHT, label=f"suggested: {suggestion:.1g}")
    axes.axvline(now, color=GREY, ls="--", label=f"train.learning_rate: {now:g}")
    start, low = smoothed[0], min(smoothed)
    axes.set(xscale="log", xlabel="learning rate", title="Loss as the learning rate rises")
    axes.set_ylim(low - 0.1 * (start - low), start + 0.6 * (start - low))
    _tidy(axes)
    axes.legend(frameon=False)
    return figure


def image_grid(
    images: NDArray[np.uint8],
    predicted: Sequence[str],
    actual: Sequence[str],
    probabilities: NDArray[np.float32],
    title: str,
) -> Figure:
    """Images (uint8, N x H x W x C) with predicted and true class under each."""
    figure, axes = _grid(len(images), most_columns=8, width=1.6, height=2.05, heading=0.5)
    figure.suptitle(title)
    for axis, image, guess, truth, probability in zip(
        axes, images, predicted, actual, probabilities, strict=True
    ):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        right = guess == truth
        text = f"{_shortened(guess)} {probability:.0%}"
        text += "" if right else f"\nis {_shortened(truth)}"
        axis.set_xlabel(text, fontsize=8, color=RIGHT if right else WRONG, parse_math=False)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure


def pairs(
    originals: NDArray[np.uint8],
    seen: NDArray[np.uint8],
    names: Sequence[str],
    captions: Sequence[str],
) -> Figure:
    """Images as they are and, under each, as the network sees them, eight pairs side by side.

    Args:
        originals: uint8, N x H x W x C.
        seen: uint8, N x H x W x C.
        names: above each original.
        captions: below each image in ``seen``.
    """
    columns = min(8, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(1.5 * columns + 0.3, 3.6 * rows), layout="constrained")
    for row, part in enumerate(figure.subfigures(rows, squeeze=False).ravel()):
        above, below = part.subplots(2, columns, squeeze=False)
        above[0].set_ylabel("as it is", color=GREY, fontsize=8)
        below[0].set_ylabel("as seen", color=GREY, fontsize=8)
        for axis in (*above, *below):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        places = range(row * columns, min((row + 1) * columns, len(names)))
        for upper, lower, place in zip(above, below, places, strict=False):
            upper.imshow(originals[place], cmap="gray", vmin=0, vmax=255)
            upper.set_title(_shortened(names[place]), fontsize=8, parse_math=False)
            lower.imshow(seen[place], cmap="gray", vmin=0, vmax=255)
            lower.set_xlabel(printable(captions[place]), fontsize=8, parse_math=False)
    return figure


def weight_histograms(weights: Mapping[str, NDArray[np.float32]]) -> Figure:
    """Histograms of the weights, one per layer, at most sixteen."""
    shown = layers(weights)
    figure, axes = _grid(len(shown), most_columns=4, width=3, height=2.2)
    for axis, (name, value) in zip(axes, shown, strict=True):
        axis.hist(value.ravel(), bins=60, color=TRAIN)
        axis.set_title(f"{name}  {'x'.join(map(str, value.shape))}", fontsize=8)
        axis.set_yticks([])
        _tidy(axis)
    return figure


def layers(weights: Mapping[str, NDArray[np.float32]]) -> list[tuple[str, NDArray[np.float32]]]:
    """The weights of the first sixteen layers, with their names; biases are none."""
    return [(name, value) for name, value in weights.items() if value.ndim > 1][:16]


def filter_mosaic(
    weight: NDArray[np.float32], image_shape: Sequence[int]
) -> tuple[NDArray[np.float32], int, int]:
    """The weights of the first layer as one image, at most 64 units; its columns and rows of units.

    Each unit is scaled to -1..1, and NaN stands between them.

    Args:
        weight: float32, units x pixels of a fully connected layer, or units x C x H x W.
        image_shape: (H, W, C) of the images.
    """
    if weight.ndim == 2:
        height, width, channels = image_shape
        weight = weight.reshape(-1, channels, height, width)
    filters = weight[:64].mean(axis=1)
    columns = min(16, len(filters))
    rows = -(-len(filters) // columns)
    height, width = filters.shape[1] + 1, filters.shape[2] + 1
    # One image of all filters is drawn ten times as fast as one image for each.
    mosaic = np.full((rows * height - 1, columns * width - 1), np.nan, dtype=np.float32)
    for place, picture in enumerate(filters):
        top, left = place // columns * height, place % columns * width
        reach = np.abs(picture).max() or 1.0
        mosaic[top : top + height - 1, left : left + width - 1] = picture / reach
    return mosaic, columns, rows


def first_filters(weight: NDArray[np.float32], image_shape: Sequence[int]) -> Figure:
    """The picture of ``filter_mosaic``."""
    mosaic, columns, rows = filter_mosaic(weight, image_shape)
    figure = Figure(figsize=(0.7 * columns, 0.7 * rows + 0.3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mosaic, cmap="RdBu", vmin=-1, vmax=1)
    axes.set_axis_off()
    figure.suptitle("First layer: red is negative, blue positive", fontsize=9)
    return figure


def image_with_probabilities(
    images: Sequence[NDArray[np.uint8]],
    titles: Sequence[str],
    likeliest: Sequence[Sequence[tuple[str, float]]],
) -> Figure:
    """A row per image: the image (uint8, H x W x C) beside its likeliest classes as bars.

    ``likeliest`` holds, per image, class names and probabilities, the likeliest first.
    """
    bars = len(likeliest[0])
    height = max(2.2, 0.9 + 0.23 * bars)
    figure = Figure(figsize=(7.5, height * len(images)), layout="constrained")
    rows = figure.subplots(len(images), 2, squeeze=False, width_ratios=[1, 1.9])
    colours = [TRAIN, *[PALE] * (bars - 1)]
    for (picture, chart), image, title, pairs in zip(rows, images, titles, likeliest, strict=True):
        picture.imshow(image, cmap="gray", vmin=0, vmax=255)
        picture.set(xticks=[], yticks=[])
        picture.spines[:].set_visible(False)
        picture.set_title(_shortened(title), fontsize=9, parse_math=False)
        names, values = zip(*pairs, strict=True)
        drawn = chart.barh(np.arange(bars), values, height=0.7, color=colours)
        chart.bar_label(drawn, [f"{value:.1%}" for value in values], padding=4, fontsize=9)
        chart.set_yticks(np.arange(bars), list(map(printable, names)), fontsize=9, parse_math=False)
        chart.invert_yaxis()
        chart.set(xlim=(0, 1.12), xticks=[])
        chart.tick_params(length=0)
        chart.spines[["top", "right", "bottom"]].set_visible(False)
    rows[0, 1].set_title("Probability of each class", fontsize=9)
    return figure


def _grid(
    count: int, most_columns: int, width: float, height: float, heading: float = 0
) -> tuple[Figure, Any]:
    """A figure with ``count`` axes in a grid; sizes are in inches, those of each of the axes."""
    columns = min(most_columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + heading), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def _shortened(title: str) -> str:
    shown = printable(title)
    return shown if len(shown) <= LONGEST_TITLE else f"{shown[: LONGEST_TITLE - 1]}…"


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
