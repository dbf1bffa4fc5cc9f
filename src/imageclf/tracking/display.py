"""The terminal output of a training: a progress bar, and one line per epoch."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from imageclf.training.loop import EpochResult, Position, Training


class Display:
    """Shows positions within an epoch, and the results of whole epochs."""

    def __init__(self, console: Console, bar: Progress, training: Training) -> None:
        self._console, self._bar = console, bar
        self._epochs, self._images = training.params.train.epochs, training.images_per_epoch
        total = self._epochs * self._images
        self._task = bar.add_task("", total=total, loss="", speed="")
        console.print(f"{'epoch':>9}  train loss  val loss  val accuracy  images/s")

    def position(self, position: Position) -> None:
        """Move the bar."""
        self._bar.update(
            self._task,
            completed=(position.epoch - 1) * self._images + position.images,
            description=f"epoch {position.epoch}/{self._epochs}",
            loss=f"loss {position.train_loss:.4f}",
        )

    def epoch(self, result: EpochResult) -> None:
        """Print the line of a finished epoch."""
        self._bar.update(
            self._task,
            completed=result.epoch * self._images,
            speed=f"{result.images_per_second:,.0f} images/s  val {result.val_accuracy:.2%}",
        )
        self._console.print(
            f"{f'{result.epoch}/{self._epochs}':>9}  {result.train_loss:10.4f}"
            f"  {result.val_loss:8.4f}  {result.val_accuracy:12.2%}"
            f"  {result.images_per_second:8,.0f}"
        )

    def warn(self, warning: str | None) -> None:
        """Print a warning that stays in view, if there is one."""
        if warning:
            self._console.print(f"warning: {warning}", style="bold red")


@contextmanager
def training_display(training: Training) -> Iterator[Display]:
    """A display of a training; without a terminal, only the lines."""
    console = Console(highlight=False, soft_wrap=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[loss]}  {task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        yield Display(console, bar, training)
