from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from imageclf import plots


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


def test_confusion_writes_every_count() -> None:
    figure = plots.confusion(np.array([[5, 1], [0, 7]]), ["cat", "dog"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["5", "1", "7"]


def test_the_grid_names_guess_and_truth() -> None:
    images = np.zeros((3, 4, 4), dtype=np.uint8)
    figure = plots.image_grid(
        images, ["cat", "dog", "dog"], ["cat", "dog", "cat"], np.array([0.9, 0.8, 0.7]), "Worst"
    )
    captions = [axis.get_xlabel() for axis in figure.axes]
    assert captions == ["cat 90%", "dog 80%", "dog 70%\nis cat"]


def test_equal_figures_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        plots.save_figure(plots.confusion(np.eye(3, dtype=int), [*"abc"]), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert image.width > 300
