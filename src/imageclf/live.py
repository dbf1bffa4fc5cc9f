"""Live reporting: the training feeds a child process, and the child tells MLflow.

The child is ``python -m imageclf.tracking``. It imports mlflow and waits for the server on another
core, in a session of its own, so that Ctrl-C in the terminal does not end it. It reads one JSON
object a line: a ``RunDescription``, the ``Metrics`` of each epoch, and the ``End``. Where the pipe
just ends, the training was killed.

The training never waits for MLflow but at its end, and then for ``WAIT_S`` at most.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from imageclf.files import UserError, read_json, write_json
from imageclf.params import Params, tracked_values

if TYPE_CHECKING:
    import torch

WAIT_S = 15.0
# What was trained last in this folder, and on which machine. No out of a stage, so that a model
# restored from DVC's cache does not bring the machine of another one with it.
TRAINED = Path(".checkpoints/trained.json")
LIBRARIES = ("torch", "torchvision", "numpy")


@dataclass(frozen=True)
class RunDescription:
    """What identifies a run in MLflow and is known before its first epoch.

    Attributes:
        fingerprint: of the model, 64 hexadecimal digits.
        name: shown in lists of runs.
        experiment: the MLflow experiment.
        params: tracked parameters by dotted path.
        tags: strings by name, true of the model wherever it was trained.
        origin: strings by name, true of where it was trained and from which commit.
        started: milliseconds since 1970.
    """

    fingerprint: str
    name: str
    experiment: str
    params: dict[str, Any]
    tags: dict[str, str]
    origin: dict[str, str]
    started: int


def describe_run(params: Params, fingerprint: str, data: Mapping[str, str]) -> RunDescription:
    """Describe the run of a model; ``data`` gives the sha256 of splits by name."""
    name = f"{params.data.name} {params.model.name} {fingerprint[:8]}"
    tags = {"fingerprint": fingerprint} | {f"data.{split}": data[split] for split in data}
    if experiment := os.environ.get("DVC_EXP_NAME"):
        name = f"{experiment} {name}"
        tags["DVC_EXP_NAME"] = experiment
    return RunDescription(
        fingerprint=fingerprint,
        name=name,
        experiment=params.register_.experiment,
        params=tracked_values(params),
        tags=tags,
        origin=_git_tags(),
        started=now_ms(),
    )


@dataclass(frozen=True)
class Metrics:
    """Numbers by name at a step: an epoch, counted from 1, or 0 for the test split.

    ``time`` is in milliseconds since 1970.
    """

    step: int
    values: dict[str, float]
    time: int


@dataclass(frozen=True)
class End:
    """The end of a run: FINISHED, FAILED or KILLED, at ``time`` in milliseconds since 1970."""

    status: str
    time: int


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


Item = Metrics | Dataset | File | End


class LiveRun:
    """Reports a training to MLflow while the block runs; trouble there never reaches the block.

    An exception in the block ends the run as FAILED, Ctrl-C and the death of this process as
    KILLED. Where MLflow cannot be told, one line on stderr says why.
    """

    def __init__(self, description: RunDescription, device: "torch.device") -> None:
        self._machine = machine_tags(device)
        self._description = replace(description, origin=description.origin | self._machine)
        self._told = False

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "imageclf.tracking"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._child.stdin  # noqa: S101 - a pipe was asked for
        self._pipe = self._child.stdin
        os.set_blocking(self._pipe.fileno(), False)
        self._send(self._description)
        return self

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Report the figures of an epoch, counted from 1. Never waits."""
        self._send(Metrics(epoch, dict(metrics), now_ms()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            trained = {"fingerprint": self._description.fingerprint, "machine": self._machine}
            write_json(TRAINED, trained)
        ctrl_c = kind is not None and issubclass(kind, KeyboardInterrupt)
        status = "KILLED" if ctrl_c else "FAILED" if kind else "FINISHED"
        self._send(End(status, now_ms()))
        self._pipe.close()
        try:
            code = self._child.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            # Were it left alone, it might add points while `register` adds the same ones.
            self._child.kill()
            self._child.wait()
            self._tell("MLflow takes too long")
        else:
            if code:
                self._tell(f"the process that reports to MLflow ended with code {code}")

    def _send(self, message: RunDescription | Metrics | End) -> None:
        # A line of an epoch is shorter than PIPE_BUF (4096 bytes), so it is written whole or not
        # at all; the first line is longer, but the pipe is empty then and takes 64 KiB.
        try:
            os.write(self._pipe.fileno(), json.dumps(asdict(message)).encode() + b"\n")
        except BlockingIOError:
            self._tell("MLflow takes too long")
        except BrokenPipeError:
            # It ended early; its exit code is looked at in the end.
            pass

    def _tell(self, reason: str) -> None:
        if not self._told:
            _tell(reason)
        self._told = True


def follow(
    lines: Iterator[str], report: Callable[[RunDescription, Iterable[Metrics | End]], None]
) -> None:
    """The child's side: read what the training says until it ends, and ``report`` it as it comes.

    When ``report`` raises a UserError, say so once, wait for the end of the training and report
    all of it once more: a server that came back gets everything, and the run its status.
    """
    first = next(lines, None)
    if first is None:  # the training died before it said a word
        return
    description = RunDescription(**json.loads(first))
    received: list[Metrics | End] = []
    incoming = _received(lines, received)
    try:
        report(description, incoming)
    except UserError as error:
        _tell(str(error))
        for _ in incoming:
            pass
        with suppress(UserError):  # the user knows already
            report(description, received)


def _received(lines: Iterator[str], received: list[Metrics | End]) -> Iterator[Metrics | End]:
    """What the lines say, each also kept in ``received``; the last one is the end."""
    for line in lines:
        message = json.loads(line)
        received.append(End(**message) if "status" in message else Metrics(**message))
        yield received[-1]
    if not received or not isinstance(received[-1], End):
        received.append(End("KILLED", now_ms()))
        yield received[-1]


def _tell(reason: str) -> None:
    line = f"tracking waits: {reason}; `dvc repro` (the register stage) fills the gap"
    print(line, file=sys.stderr, flush=True)


def now_ms() -> int:
    """MLflow's time: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def machine_of(fingerprint: str) -> dict[str, str] | None:
    """Tags of the machine, if the last training in this folder was that of ``fingerprint``.

    None says that the model came from somewhere else: DVC's cache, a remote, another machine.
    """
    if not TRAINED.exists():
        return None
    trained = read_json(TRAINED)
    machine: dict[str, str] = trained["machine"]
    return machine if trained["fingerprint"] == fingerprint else None


def machine_tags(device: "torch.device") -> dict[str, str]:
    """Device, hardware and versions of the libraries that compute."""
    tags = {"device": str(device), "hardware": _hardware(device)}
    tags |= {f"version.{name}": version(name) for name in LIBRARIES}
    return tags | {"version.python": platform.python_version()}


def _hardware(device: "torch.device") -> str:
    """The name of the GPU, or of the processor."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    with suppress(OSError):  # there is no such file but on Linux, and no such line on ARM
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_tags() -> dict[str, str]:
    """The commit, and whether a file that git tracks was changed since; nothing outside of git."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = _git("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit, "git_dirty": "true" if changes else "false"}


def _git(*arguments: str) -> str | None:
    """What git answers, or None where there is no git, no repository or no commit."""
    try:
        ended = subprocess.run(  # noqa: S603 - every word of it is the project's own
            ["git", *arguments],  # noqa: S607 - the git of whoever trains
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return ended.stdout.strip() if ended.returncode == 0 else None
