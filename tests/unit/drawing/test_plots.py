from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imageclf.drawing import plots


def test_loss_curves_hold_train_and_val_in_one_plot() -> None:
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "train_loss": [3.0, 2.0, 1.0],
            "val_loss": [3.0, 2.5, 2.7],
            "train_accuracy": [0.1, 0.2, 0.3],
            "val_accuracy": [0.1, 0.2, 0.2],
        }
    )
    loss = plots.loss_curves(history).axes[0]
    train, val, best = loss.lines
    assert train.get_ydata().tolist() == [3, 2, 1]
    assert val.get_ydata().tolist() == [3, 2.5, 2.7]
    assert best.get_xydata().tolist() == [[2, 2.5]]
    assert best.get_label() == "lowest val loss, epoch 2"


def test_names_are_no_formulas_and_long_ones_are_shortened(tmp_path: Path) -> None:
    names = ["$a_$ 猫", "a" * 200]
    images = np.zeros((2, 4, 4, 1), dtype=np.uint8)
    figure = plots.image_grid(images, names, names, np.array([0.9, 0.8]), "Worst")
    first, second = [axis.get_xlabel() for axis in figure.axes]
    assert (first, len(second)) == ("$a_$ 猫 90%", plots.LONGEST_TITLE + len(" 80%"))
    plots.save_figure(figure, tmp_path / "worst.png")


def test_the_grid_names_guess_and_truth() -> None:
    images = np.zeros((3, 4, 4, 1), dtype=np.uint8)
    figure = plots.image_grid(
        images, ["cat", "dog", "dog"], ["cat", "dog", "cat"], np.array([0.9, 0.8, 0.7]), "Worst"
    )
    captions = [axis.get_xlabel() for axis in figure.axes]
    assert captions == ["cat 90%", "dog 80%", "dog 70%\nis cat"]


def test_equal_figures_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        figure = plots.weight_histograms({"layer": np.eye(9)})
        plots.save_figure(figure, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert image.width > 300


def test_pairs_stand_one_above_the_other() -> None:
    originals = np.zeros((10, 4, 4, 1), dtype=np.uint8)
    seen = np.full((10, 4, 4, 1), 9, dtype=np.uint8)
    names, captions = [*"abcdefgh$_"], [f"100% {name}" for name in "ABCDEFGHIJ"]
    figure = plots.pairs(originals, seen, names, captions)
    figure.canvas.draw()
    assert len(figure.axes) == 32
    upper = [*figure.axes[:8], *figure.axes[16:18]]
    lower = [*figure.axes[8:16], *figure.axes[24:26]]
    assert [axis.get_title() for axis in upper] == names
    assert [axis.get_xlabel() for axis in lower] == captions
    assert all(axis.images[0].get_array().max() == 0 for axis in upper)
    assert all(axis.images[0].get_array().min() == 9 for axis in lower)
    assert not any(axis.images for axis in [*figure.axes[18:24], *figure.axes[26:]])


def test_histograms_count_every_weight() -> None:
    weights = {"layer.weight": np.arange(12.0).reshape(3, 4), "layer.bias": np.zeros(3)}
    (axis,) = plots.weight_histograms(weights).axes
    assert axis.get_title() == "layer.weight  3x4"
    assert sum(patch.get_height() for patch in axis.patches) == 12


@pytest.mark.parametrize("weight", [np.arange(1.0, 33.0).reshape(2, 16), np.ones((2, 3, 3, 3))])
def test_filters_stand_side_by_side_each_on_its_own_scale(weight: np.ndarray) -> None:
    (axis,) = plots.first_filters(weight, (4, 4, 1)).axes
    mosaic = axis.images[0].get_array()
    side = 4 if weight.ndim == 2 else 3
    assert mosaic.shape == (side, 2 * side + 1)
    assert np.ma.getmaskarray(mosaic)[:, side].all()
    assert [mosaic[:, :side].max(), mosaic[:, side + 1 :].max()] == [1, 1]
