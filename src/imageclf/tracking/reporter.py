"""The reporter: the child process of a training that writes its messages to MLflow.

``live`` starts it, and documents the protocol.
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
PIPE_CAPACITY = 1 << 16  # bytes, on Linux
TURN = [Metrics, FirstBatch, End]  # the order of messages that arrive together


def arriving(pipe: int) -> Iterator[list[str]]:
    """The lines from a pipe: each time, all that have arrived."""
    rest = b""
    while data := os.read(pipe, PIPE_CAPACITY):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield [line.decode() for line in lines]


def follow(
    arrivals: Iterator[list[str]], report: Callable[[RunDescription, Iterable[Message]], None]
) -> None:
    """Add the source to the journal, then ``report`` each message of the training as it comes.

    After a UserError of ``report``, tell the user once, wait for the end of the training and report
    everything again, in case the server is back. The first batch is then left to `register`: a
    server that refuses files still gets the points. A line on stdout lets the training know that
    the user was told.
    """
    first, *others = next(arrivals, [""])
    if not first:  # the training died before its first message
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
    """The messages in the lines, each also added to ``received``; the last one is the end.

    The first batch takes a second to draw, so points that arrived with it go first. It is left out
    if the training has finished: the stage evaluate draws it too. An end for which the pipe had no
    room is in the journal; a training that was killed wrote none.
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
    # In a thread, because the source must be recorded even if the training ends before the import.
    Thread(target=_import_mlflow, daemon=True).start()
    follow(arriving(sys.stdin.fileno()), report)
