import pytest

from helpers.small_training import small, training
from imageclf.tracking.display import training_display
from imageclf.training.loop import EpochResult


def test_without_a_terminal_there_is_one_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    watched = training(small(train__epochs=2))
    with training_display(watched) as display:
        for epoch in (1, 2):
            display.position(watched.position)
            display.epoch(EpochResult(epoch, 0.1, 0.5, 0.8, 0.6, 0.75, 2.0, 50_000.0))
            display.warn("look at this" if epoch == 2 else None)
    header, *lines, warning = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "epoch",
        "train",
        "loss",
        "val",
        "loss",
        "val",
        "accuracy",
        "images/s",
    ]
    assert [line.split() for line in lines] == [
        [f"{epoch}/2", "0.5000", "0.6000", "75.00%", "50,000"] for epoch in (1, 2)
    ]
    assert warning == "warning: look at this"
