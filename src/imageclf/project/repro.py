"""`dvc repro` as events: which stage runs, what it prints, and how it all ends."""

import codecs
import os
import pty
import re
import select
import subprocess
import termios
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from imageclf.project.dvc import dvc_in_terminal

POLL_S = 0.1
ROWS = 24
STATES = (
    (re.compile(r"Running stage '(.+)':"), "runs"),
    (re.compile(r"Stage '(.+)' is cached - skipping run, checking out outputs"), "cached"),
    (re.compile(r"Stage '(.+)' didn't change, skipping"), "unchanged"),
)
EXIT_CODE = re.compile(r"ERROR: failed to reproduce '.+': .*exited with (-?\d+)")
# What DVC prints of itself while a stage runs.
ITS_OWN = re.compile(r"(> |Updating lock file |Generating lock file )|$")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[@-~]")  # colours, and movements of the cursor


@dataclass(frozen=True)
class Stage:
    """A stage begins to run, comes from DVC's cache, or need not run."""

    name: str
    state: Literal["runs", "cached", "unchanged"]


@dataclass(frozen=True)
class Line:
    """A line that a stage or DVC printed, without colours."""

    text: str


@dataclass(frozen=True)
class Bar:
    """What a progress bar of a stage or of DVC shows now, without colours."""

    text: str


@dataclass(frozen=True)
class End:
    """The end: 0, or else the exit code of the stage that failed, or of `dvc`."""

    code: int


Event = Stage | Line | Bar | End


def repro(
    columns: int | None, copy: Callable[[bytes], object] | None
) -> Generator[Event, None, None]:
    """Run `dvc repro`; close the iterator to end it.

    Args:
        columns: of the terminal that the stages see; None if they are to see none, and show no
            progress bars.
        copy: called with all that is printed, as it comes, if given.

    Raises:
        UserError: the project is in no git repository.
    """
    reader, writer = pty.openpty() if columns else os.pipe()
    code = 0
    try:
        if columns:
            termios.tcsetwinsize(writer, (ROWS, columns))
        # Python would keep what it prints to a pipe until there is more of it.
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with dvc_in_terminal(
            "repro", stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, environment=environment
        ) as process:
            for event in events(_chunks(reader, process, copy)):
                yield event
                if isinstance(event, Line) and (found := EXIT_CODE.match(event.text)):
                    code = int(found[1])
            ended = process.wait()
    finally:
        os.close(reader)
        os.close(writer)
    yield End(0 if ended == 0 else _as_shell(code or ended))


def events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """The events in what `dvc repro` prints."""
    decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in lines:
            yield _event(_visible(line))
        rest = rest[max(rest.rfind("\r", 0, -1), 0) :]  # a bar is drawn again and again
        if bar := _visible(rest):
            yield Bar(bar)
    if last := _visible(rest):
        yield _event(last)


def is_own(line: str) -> bool:
    """Whether a line is one of DVC's own, and not of a stage."""
    return ITS_OWN.match(line) is not None


def _event(line: str) -> Event:
    for pattern, state in STATES:
        if found := pattern.fullmatch(line):
            return Stage(found[1], state)  # type: ignore[arg-type]
    return Line(line)


def _visible(line: str) -> str:
    """What a terminal shows of a line after all that overwrites it."""
    return CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip()


def _chunks(
    reader: int, process: "subprocess.Popen[bytes]", copy: Callable[[bytes], object] | None
) -> Iterator[bytes]:
    """What a process prints, until it ends; what it started may hold its output open for longer."""
    while True:
        ended = process.poll() is not None
        if select.select([reader], [], [], 0 if ended else POLL_S)[0]:
            chunk = os.read(reader, 1 << 16)
            if copy:
                copy(chunk)
            yield chunk
        elif ended:
            return


def _as_shell(code: int) -> int:
    """The exit code, as a shell tells that of a process which a signal ended."""
    return code if code >= 0 else 128 - code
