"""Live reporting: the training sends messages to a child process, which writes them to MLflow.

The child, ``python -m imageclf.tracking.reporter``, imports mlflow while the training imports
torch. It has a process group of its own, so that Ctrl-C in the terminal does not end it, but not a
session of its own, in which its niceness would not count. It reads one JSON object a line: a
``RunDescription``, the ``Metrics`` of each epoch, and the ``End``. If the pipe closes without an
``End``, the training was killed.

The training waits for MLflow only at its end, for at most ``WAIT_S``.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
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
    """Reports a training to MLflow and the journal while the block runs.

    An exception after ``begin`` ends the run as FAILED; Ctrl-C, or the death of this process, as
    KILLED. Errors of MLflow never reach the block: one line on stderr gives the reason.

    Attributes:
        child: the reporter, which starts with the block.
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
        """Start the run, or resume it after the ``epochs`` in the training's checkpoint."""
        description = replace(description, origin=this_machine(device, processes))
        self._journal = Journal(description.fingerprint)
        self._held.enter_context(self._journal.training(description, epochs))
        self._send(description)

    def log_first_batch(self, preview: Mapping[str, Any]) -> None:
        """Report the first batch, as the arguments of ``plots.pairs``. Never waits."""
        import numpy as np

        assert self._journal  # noqa: S101 - since ``begin``
        np.savez(self._journal.first_batch, allow_pickle=False, **preview)
        self._send(FirstBatch(str(self._journal.first_batch)))

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Report the figures of an epoch, counted from 1. Never waits."""
        self._say(Metrics(epoch, dict(metrics), now_ms()))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
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
            # Otherwise it might add points while `register` adds the same ones.
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
            # The child ended early; ``_await_child`` reports its exit code.
            pass
