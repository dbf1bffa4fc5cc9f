"""The names of metrics in MLflow, which draws those alike before the last slash side by side.

Everywhere else they are named as in reports/history.csv, and those of the test split begin with
``test_``.
"""

SPLITS = ("train", "val", "test")
OTHERS = {
    "learning_rate": "train/learning_rate",
    "seconds": "time/seconds",
    "images_per_second": "time/images_per_second",
}
PLAIN = {grouped: plain for plain, grouped in OTHERS.items()}


def grouped(name: str) -> str:
    """The name in MLflow: ``val_loss`` is ``val/loss``; one that is grouped already stays."""
    split, _, figure = name.partition("_")
    return f"{split}/{figure}" if split in SPLITS and figure else OTHERS.get(name, name)


def plain(name: str) -> str:
    """The name outside of MLflow; one that MLflow has from before the groups stays."""
    split, _, figure = name.partition("/")
    return PLAIN.get(name, f"{split}_{figure}" if split in SPLITS and figure else name)
