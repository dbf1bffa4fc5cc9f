import pytest

from imageclf.display import training_display
from imageclf.training import EpochResult, Position


def test_without_a_terminal_there_is_one_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    with training_display(epochs=2, images=100) as display:
        for epoch in (1, 2):
            display.position(Position(epoch, 50, 1.0))
            display.epoch(EpochResult(epoch, 0.1, 0.5, 0.8, 0.6, 0.75, 2.0, 50_000.0))
    header, *lines = capsys.readouterr().out.splitlines()
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
