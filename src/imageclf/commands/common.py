"""Shared by the commands: where they may run, how they print, how they are interrupted."""

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imageclf.files import UserError
from imageclf.text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

WIDTH = 80  # columns of output to a file or a pipe


class InProject(click.Command):
    """A command that is refused outside of the project's folder."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, or raise a UserError in another folder."""
        if not Path("dvc.yaml").exists():
            raise UserError("there is no dvc.yaml here: run this in the folder of the project")
        return super().invoke(ctx)


def examples(*lines: str) -> str:
    """Lines that Click shows as they are, below the options."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def check_png(option: str, path: Path) -> None:
    """Refuse to write a figure to a file that is not named as a PNG."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{option} {path}: the figure is a PNG, so name it {path.stem}.png")


def columns(rows: "Iterable[Iterable[RenderableType]]") -> "Table":
    """A table of rows of cells; text is printed on one line, without markup."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*(lines(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def lines(*texts: str, style: str = "") -> "Text":
    """A line for each text."""
    from rich.text import Text

    return Text("\n".join(map(printable, texts)), style=style)


def console() -> "Console":
    """The terminal in its width, or else plain text ``WIDTH`` columns wide."""
    from rich.console import Console

    found = Console(highlight=False)
    found.width = found.width if found.is_terminal else WIDTH
    return found


def echo(shown: "RenderableType") -> None:
    """Print in the width of ``console``, without spaces at the ends of lines."""
    where = console()
    with where.capture() as printed:
        where.print(shown)
    for line in printed.get().splitlines():
        click.echo(line.rstrip())


def complain(error: object) -> None:
    """Show an error on stderr: one line, which a terminal shows broken at words, in red."""
    from rich.console import Console
    from rich.text import Text

    where = Console(stderr=True, highlight=False, soft_wrap=True)
    where.soft_wrap = not where.is_terminal
    where.print(Text.assemble(("error:", "bold red"), f" {error}"))


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the block as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
