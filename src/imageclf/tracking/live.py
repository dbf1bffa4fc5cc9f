"""Live reporting: the training feeds a child process, and the child tells MLflow.

The child, ``python -m imageclf.tracking.runs``, imports mlflow while the training imports torch,
and waits for the server on another core, in a process group of its own, so that Ctrl-C in the
terminal does not end it. (A session of its own would get as much of a single core as the training,
however nice it is.) It reads one JSON object a line: a ``RunDescription``, the ``Metrics``
of each epoch, and the ``End``. Where the pipe just ends, the training was killed.

The training never waits for MLflow but at its end, and then for ``WAIT_S`` at most.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from imageclf.files import UserError, write_text
from imageclf.params import Params, tracked_values
from imageclf.tracking.journal import (
    EXPERIMENT,
    LATEST,
    End,
    FirstBatch,
    Journal,
    Message,
    Metrics,
    RunDescription,
    decode,
    encode,
    now_ms,
)
from imageclf.tracking.provenance import machine_tags

if TYPE_CHECKING:
    import torch

WAIT_S = 15.0
STDOUT = 1  # unbuffered, so that a broken pipe is noticed here and not at the exit
PIPE_CAPACITY = 1 << 16  # bytes, as Linux has it
TURN = [Metrics, FirstBatch, End]  # of messages that arrive together


def describe_run(
    params: Params,
    fingerprint: str,
    data: Mapping[str, str],
    experiment: str | None = None,
    weights: Mapping[str, str] | None = None,
) -> RunDescription:
    """Describe the run of a model, without its origin.

    Args:
        params: that made it.
        fingerprint: of the model.
        data: the sha256 of splits by name.
        experiment: the name of the DVC experiment, where it is not the one that goes on now.
        weights: where those came from that the training began with, if they were not drawn.
    """
    name = f"{params.data.name} {params.model.name} {fingerprint[:8]}"
    tags = {"fingerprint": fingerprint} | {f"data.{split}": data[split] for split in data}
    tags |= {f"weights.{name}": value for name, value in (weights or {}).items()}
    if experiment := experiment or os.environ.get(EXPERIMENT):
        name = f"{experiment} {name}"
        tags[EXPERIMENT] = experiment
    return RunDescription(
        fingerprint=fingerprint,
        name=name,
        experiment=params.register_.experiment,
        params=tracked_values(params),
        tags=tags,
        origin={},
        started=now_ms(),
    )


@dataclass(frozen=True)
class Dataset:
    """A split that a run used; ``context`` is train, val or test."""

    context: str
    name: str
    digest: str
    source: str
    images: int


@dataclass(frozen=True)
class File:
    """A file, or a folder with all that is in it, kept under ``folder`` of the run's artifacts."""

    path: Path
    folder: str = ""


@dataclass(frozen=True)
class Patch(File):
    """What the source differed from ``commit``: for a run of that commit and for no other."""

    commit: str = ""


Item = Message | Dataset | File


class LiveRun:
    """Reports a training to MLflow while the block runs; trouble there never reaches the block.

    The process that tells MLflow starts with the block, so that it is ready when there is something
    to tell. An exception after ``begin`` ends the run as FAILED, Ctrl-C and the death of this
    process as KILLED. Where MLflow cannot be told, one line on stderr says why. The journal keeps
    all of it.
    """

    def __init__(self) -> None:
        self._journal: Journal | None = None
        self._held = ExitStack()
        self._lost = False

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "imageclf.tracking.runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._child.stdin and self._child.stdout  # noqa: S101, PT018 - pipes were asked for
        self._pipe, self._said = self._child.stdin, self._child.stdout
        os.set_blocking(self._pipe.fileno(), False)
        return self

    def begin(
        self, description: RunDescription, device: "torch.device", epochs: int, processes: int = 1
    ) -> None:
        """Start the run, or go on with it.

        Args:
            description: of the run.
            device: on which is trained.
            epochs: that an earlier process finished, if the training goes on from its checkpoint.
            processes: that train together.
        """
        description = replace(description, origin=machine_tags(device, processes))
        self._journal = Journal(description.fingerprint)
        self._held.enter_context(self._journal.training(description, epochs))
        self._send(description)

    def log_first_batch(self, preview: Mapping[str, Any]) -> None:
        """Report what the network sees first, in what ``plots.pairs`` takes. Never waits."""
        import numpy as np

        assert self._journal  # noqa: S101 - since ``begin``
        np.savez(self._journal.first_batch, allow_pickle=False, **preview)
        self._send(FirstBatch(str(self._journal.first_batch)))

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Report the figures of an epoch, counted from 1. Never waits."""
        self._say(Metrics(epoch, dict(metrics), now_ms()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._journal is None:
            self._pipe.close()
            self._child.kill()
            self._child.wait()
            self._said.close()
            return
        with self._held:
            if kind is None:
                write_text(LATEST, self._journal.fingerprint)
            ctrl_c = kind is not None and issubclass(kind, KeyboardInterrupt)
            self._say(End("KILLED" if ctrl_c else "FAILED" if kind else "FINISHED", now_ms()))
            self._pipe.close()
            self._await_child()

    def _await_child(self) -> None:
        reason = "MLflow takes too long" if self._lost else None
        try:
            if code := self._child.wait(WAIT_S):
                reason = f"the process that reports to MLflow ended with code {code}"
        except subprocess.TimeoutExpired:
            # Were it left alone, it might add points while `register` adds the same ones.
            self._child.kill()
            self._child.wait()
            reason = "MLflow takes too long"
        with self._said:
            told = self._said.read()
        if reason and not told:
            _tell(reason)

    def _say(self, message: Metrics | End) -> None:
        assert self._journal  # noqa: S101 - since ``begin``
        self._journal.say(message)
        self._send(message)

    def _send(self, message: RunDescription | Message) -> None:
        # A line of an epoch is shorter than PIPE_BUF (4096 bytes), so it is written whole or not
        # at all; the first line is longer, but the pipe is empty then.
        try:
            os.write(self._pipe.fileno(), f"{encode(message)}\n".encode())
        except BlockingIOError:
            self._lost = True
        except BrokenPipeError:
            # It ended early; its exit code is looked at in the end.
            pass


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
    """The child's side: read what the training says until it ends, and ``report`` it as it comes.

    First of all, and while the training goes on, it finds out from which source that is.

    When ``report`` raises a UserError, say so once, wait for the end of the training and report
    all of it once more: a server that came back gets everything, and the run its status. Only the
    first batch is left to `register`, as a server that takes no files shall not miss the points.
    A word on stdout lets the training know that the user was told.
    """
    first, *others = next(arrivals, [""])
    if not first:  # the training died before it said a word
        return
    description = RunDescription(**json.loads(first))
    journal = Journal(description.fingerprint)
    description = replace(description, origin=description.origin | journal.add_source())
    received: list[Message] = []
    incoming = _received(chain([others], arrivals), received, journal)
    try:
        report(description, incoming)
    except UserError as error:
        _tell(str(error))
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
    room for stands in the journal; who was killed could not write it there.
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


def _tell(reason: str) -> None:
    line = f"tracking waits: {reason}; `dvc repro` (the register stage) fills the gap"
    print(line, file=sys.stderr, flush=True)
