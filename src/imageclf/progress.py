"""A bar that moves while many images are worked on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Images a second."""
        return Text(f"{task.speed or 0:,.0f} images/s")


@contextmanager
def images_bar(console: Console, images: int) -> Iterator[Callable[[int], None]]:
    """A bar for so many images, on a terminal; what it yields moves it by a number of them."""
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=images)
        yield lambda count: bar.advance(task, count)
