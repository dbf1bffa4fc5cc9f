"""Live reporting: the training feeds a child process, the reporter, which tells MLflow.

The child, ``python -m imageclf.tracking.reporter``, imports mlflow while the training imports
torch, and waits for the server on another core. It has a process group of its own, so that Ctrl-C
in the terminal does not end it. (In a session of its own it would get as much of a single core as
the training, however nice it is.) It is sent one JSON object a line: a ``RunDescription``, the
``Metrics`` of each epoch, and the ``End``. Where the pipe just ends, the training was killed.

The training never waits for MLflow but at its end, and then for ``WAIT_S`` at most.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from imageclf.files import write_text
from imageclf.tracking.journal import LATEST, Journal
from imageclf.tracking.messages import (
    End,
    FirstBatch,
    Message,
    Metrics,
    RunDescription,
    encode,
    now_ms,
    tell_delay,
)
from imageclf.tracking.provenance import this_machine

if TYPE_CHECKING:
    import torch

WAIT_S = 15.0


class LiveRun:
    """Reports a training to MLflow while the block runs; trouble there never reaches the block.

    The process that tells MLflow starts with the block, so that it is ready when there is something
    to tell. An exception after ``begin`` ends the run as FAILED, Ctrl-C and the death of this
    process as KILLED. Where MLflow cannot be told, one line on stderr says why. The journal keeps
    all of it.

    Attributes:
        child: the process that tells MLflow.
    """

    def __init__(self) -> None:
        self._journal: Journal | None = None
        self._held = ExitStack()
        self._lost = False

    def __enter__(self) -> Self:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "imageclf.tracking.reporter"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self.child.stdin and self.child.stdout  # noqa: S101, PT018 - pipes were asked for
        self._pipe, self._said = self.child.stdin, self.child.stdout
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
        description = replace(description, origin=this_machine(device, processes))
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
            self.child.kill()
            self.child.wait()
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
            if code := self.child.wait(WAIT_S):
                reason = f"the process that reports to MLflow ended with code {code}"
        except subprocess.TimeoutExpired:
            # Were it left alone, it might add points while `register` adds the same ones.
            self.child.kill()
            self.child.wait()
            reason = "MLflow takes too long"
        with self._said:
            told = self._said.read()
        if reason and not told:
            tell_delay(reason)

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
