"""Progress bars: over many images, or over the bytes of files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Images a second."""
        return Text(f"{task.speed or 0:,.0f} images/s")


@contextmanager
def image_progress(console: Console, images: int) -> Iterator[Callable[[int], None]]:
    """A bar with images a second and the time left, where the console is a terminal.

    Call what it yields with the number of images done since the last call.
    """
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    hidden = console.quiet or not console.is_terminal
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, disable=hidden
    ) as bar:
        task = bar.add_task("", total=images)
        yield lambda count: bar.advance(task, count)


def byte_progress(console: Console) -> Progress:
    """Bars of named files with bytes, rate and time left, where the console is a terminal."""
    return Progress(
        TextColumn("  {task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
