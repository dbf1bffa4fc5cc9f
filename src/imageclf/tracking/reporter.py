"""The reporter: the child process of a training that tells MLflow what the training says.

``live`` starts it as ``python -m imageclf.tracking.reporter``, and says how the two talk.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from threading import Thread

from imageclf.files import UserError
from imageclf.system.machine import collect_garbage_rarely
from imageclf.tracking.connection import HASTY, opened_store
from imageclf.tracking.journal import Journal
from imageclf.tracking.messages import (
    End,
    FirstBatch,
    Message,
    Metrics,
    RunDescription,
    checked,
    decode,
    now_ms,
    tell_delay,
)
from imageclf.tracking.runs import report

STDOUT = 1  # unbuffered, so that a broken pipe is noticed here and not at the exit
PIPE_CAPACITY = 1 << 16  # bytes, as Linux has it
TURN = [Metrics, FirstBatch, End]  # of messages that arrive together


def arriving(pipe: int) -> Iterator[list[str]]:
    """The lines that come through a pipe, each time all that have arrived."""
    rest = b""
    while data := os.read(pipe, PIPE_CAPACITY):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield [line.decode() for line in lines]


def follow(
    arrivals: Iterator[list[str]], report: Callable[[RunDescription, Iterable[Message]], None]
) -> None:
    """Read what the training says until it ends, and ``report`` it as it comes.

    First of all, and while the training goes on, it finds out from which source that is.

    When ``report`` raises a UserError, say so once, wait for the end of the training and report
    all of it once more: a server that came back gets everything, and the run its status. Only the
    first batch is left to `register`, as a server that takes no files shall not miss the points.
    A word on stdout lets the training know that the user was told.
    """
    first, *others = next(arrivals, [""])
    if not first:  # the training died before it said a word
        return
    description: RunDescription = checked(RunDescription).validate_json(first)
    journal = Journal(description.fingerprint)
    origin = description.origin.updated(journal.add_source())
    description = replace(description, origin=origin)
    received: list[Message] = []
    incoming = _received(chain([others], arrivals), received, journal)
    try:
        report(description, incoming)
    except UserError as error:
        tell_delay(str(error))
        with suppress(BrokenPipeError):  # the training was killed
            os.write(STDOUT, b"told\n")
        for _ in incoming:
            pass
        with suppress(UserError):  # the user knows already
            report(description, [each for each in received if not isinstance(each, FirstBatch)])


def _received(
    arrivals: Iterable[list[str]], received: list[Message], journal: Journal
) -> Iterator[Message]:
    """What the lines say, each also kept in ``received``; the last one is the end.

    Drawing the first batch takes a second: points that came meanwhile go first, and a training
    that is over by then has the same picture from the stage evaluate. An end that the pipe had no
    room for stands in the journal; a training that was killed wrote none.
    """
    for lines in arrivals:
        messages = sorted(map(decode, lines), key=lambda message: TURN.index(type(message)))
        over = any(isinstance(each, End) and each.status == "FINISHED" for each in messages)
        for message in messages:
            if not (over and isinstance(message, FirstBatch)):
                received.append(message)
                yield message
    if not received or not isinstance(received[-1], End):
        said = [each for each in journal.messages()[-1:] if isinstance(each, End)]
        end = said[0] if said else End("KILLED", now_ms())
        received.append(end)
        if not said:
            journal.say(end)
        yield end


def _import_mlflow() -> None:
    with suppress(UserError), opened_store(HASTY):
        pass


if __name__ == "__main__":
    os.nice(10)
    collect_garbage_rarely()
    # While the training imports torch. The source is recorded beside it, however long it takes: a
    # training that ends before leaves the journal whole.
    Thread(target=_import_mlflow, daemon=True).start()
    follow(arriving(sys.stdin.fileno()), report)
