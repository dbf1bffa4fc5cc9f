"""`imageclf run`."""

import re
import sys
import time
from collections.abc import Iterable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageclf.commands.common import InProject, complain, console, echo, examples, interruptible
from imageclf.commands.results import result_of
from imageclf.commands.summary import summary
from imageclf.files import write_text
from imageclf.project.git import check_repository
from imageclf.project.repro import Bar, Event, Line, Stage, is_own, repro
from imageclf.text import printable

if TYPE_CHECKING:
    from rich.table import Table

LOG = Path(".imageclf/run.log")
WARNING = re.compile("warning: |(?=left out: )")
ERROR = re.compile("error: |ERROR: (?!failed to reproduce)")
# A spinner, and the bar itself: the numbers beside them need the room.
DRAWN = re.compile("[\N{BRAILLE PATTERN BLANK}-\N{BRAILLE PATTERN DOTS-12345678}━╸╺]+")
SHOWN_OF_FAILURE = 15  # lines, of a stage that ends without an error of ours
GOES_ON = {"train": "goes on from its last checkpoint"}  # after Ctrl-C
ROOM = 4  # columns for the ^C that a terminal shows


@click.command(cls=InProject, epilog=examples("imageclf run", "imageclf run -v"))
@click.option("-v", "--verbose", is_flag=True, help="Show all that DVC and the stages print.")
@click.pass_context
def run(context: click.Context, verbose: bool) -> None:
    """Run the pipeline, a line for each stage, then show the summary.

    It is `dvc repro`, which runs what a change touches, and nothing else. What DVC and the stages
    print is kept in .imageclf/run.log.

    Exit code: 0, or that of the stage that failed; 2 for bad input, 130 after Ctrl-C.
    """
    from imageclf.params import load_params

    check_repository()
    load_params()
    face = Face(verbose)
    columns = face.console.width if face.console.is_terminal else None
    try:
        with interruptible(), closing(repro(columns, _copy if verbose else None)) as found:
            code = face.show(found)
    finally:
        face.write_log()
    if code:
        context.exit(code)
    face.console.print()
    context.invoke(summary)


def _copy(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


class Face:
    """Shows the stages: the one that runs, and a line for each one that has ended."""

    def __init__(self, verbose: bool) -> None:
        self.console = console()
        self._verbose = verbose
        self._log: list[str] = []
        self._stage: Stage | None = None
        self._begun = time.monotonic()
        self._said: list[str] = []  # by the stage that runs
        self._bar = ""
        self._nothing_new = True

    def show(self, found: Iterable[Event]) -> int:
        """Show the events of `dvc repro`; returns its exit code."""
        from rich.live import Live

        hidden = self._verbose or not self.console.is_terminal
        live = Live(self, console=self.console, transient=True, refresh_per_second=5)
        try:
            with nullcontext() if hidden else live:
                code = self._follow(found)
        except KeyboardInterrupt:
            self._tell_interruption()
            raise
        if code:
            self._tell_failure(code)
        elif self._nothing_new:
            self._print("everything is up to date")
        return code

    def __rich__(self) -> "Table":
        """The stage that runs, its time and its progress."""
        if self._stage is None or self._stage.state == "unchanged":
            return _row("", "", "looking for what has changed")
        bar = " ".join(DRAWN.sub(" ", self._bar).split())
        is_its_own = self._stage.state == "runs" and any(map(str.isalnum, bar))
        return _row(self._stage.name, self._took(), bar if is_its_own else "", is_whole=False)

    def write_log(self) -> None:
        """Write what was printed."""
        write_text(LOG, "".join(f"{line}\n" for line in self._log))

    def _follow(self, found: Iterable[Event]) -> int:
        code = 0
        for event in found:
            if isinstance(event, Stage):
                self._finish()
                self._stage, self._begun = event, time.monotonic()
            elif isinstance(event, Line):
                self._read(event.text)
            elif isinstance(event, Bar):
                self._bar = event.text
            else:
                code = event.code
        self._finish(failed=code != 0)
        return code

    def _tell_interruption(self) -> None:
        if self._stage:
            self._print(_row(self._stage.name, self._took(), "interrupted"))
            self._print(f"`make run` {GOES_ON.get(self._stage.name, 'begins this stage again')}")

    def _read(self, line: str) -> None:
        self._log.append(line)
        self._bar = ""
        if is_own(line):
            return
        self._said.append(line)
        # The summary repeats what the evaluation warns of.
        if self._stage and self._stage.name != "evaluate" and (begin := WARNING.match(line)):
            self._nothing_new = False
            text = printable(line[begin.end() :])
            self._print(_row(self._stage.name, "warning", text, style="yellow"))

    def _finish(self, failed: bool = False) -> None:
        """Show the stage that has ended, unless it had nothing to do."""
        stage, self._bar = self._stage, ""
        if stage is None:
            return
        took = {"cached": "from cache", "unchanged": "up to date"}.get(stage.state, self._took())
        self._nothing_new &= stage.state == "unchanged"
        result = "failed" if failed else result_of(stage.name)
        if result is not None:
            self._print(_row(stage.name, took, printable(result)))
        if not failed:
            self._said = []

    def _tell_failure(self, code: int) -> None:
        errors = [line for line in self._said if ERROR.match(line)]
        if errors:
            complain(printable(ERROR.sub("", errors[-1])))
        elif self._stage:
            for line in self._said[-SHOWN_OF_FAILURE:]:
                self._print(printable(line))
            complain(f"the stage {self._stage.name} ended with code {code}")
        self._print(f"all that was printed: {LOG}")

    def _print(self, shown: "Table | str") -> None:
        if self._verbose:
            return
        if self.console.is_terminal:  # below what is there now, above the stage that runs
            self.console.print(shown)
        else:
            echo(shown)

    def _took(self) -> str:
        return duration(time.monotonic() - self._begun)


def _row(name: str, middle: str, text: str, style: str = "", is_whole: bool = True) -> "Table":
    """A line in three columns; what does not fit is broken at words, or cut if not ``is_whole``."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.width = None if is_whole else console().width - ROOM
    table.add_column(width=9)
    table.add_column(width=10, justify="right", style=style)
    table.add_column(
        style=style,
        ratio=None if is_whole else 1,
        no_wrap=not is_whole,
        overflow="fold" if is_whole else "ellipsis",
    )
    table.add_row(*map(Text, (name, middle, text)))
    return table


def duration(seconds: float) -> str:
    """Such as 2.1 s, 31 s, 2 min 5 s, 1 h 20 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
