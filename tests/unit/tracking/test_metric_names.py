import pytest

from imageclf.tracking.metric_names import grouped, plain
from imageclf.training.history import TRACKED

NAMES = {
    "train_loss": "train/loss",
    "val_accuracy": "val/accuracy",
    "test_top_3_accuracy": "test/top_3_accuracy",
    "learning_rate": "train/learning_rate",
    "seconds": "time/seconds",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_grouped_and_come_back(name: str) -> None:
    assert grouped(name) == grouped(NAMES[name]) == NAMES[name]
    assert plain(NAMES[name]) == plain(name) == name


def test_every_figure_of_an_epoch_is_in_a_group() -> None:
    assert all("/" in grouped(name) for name in TRACKED)
    assert [plain(grouped(name)) for name in TRACKED] == TRACKED
