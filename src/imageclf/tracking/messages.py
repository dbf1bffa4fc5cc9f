"""Messages: what a training says of itself, and what else a run is told."""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from imageclf.params import Params, tracked_values

EXPERIMENT = "DVC_EXP_NAME"


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

    def following(self, earlier: "RunDescription") -> "RunDescription":
        """This description, with the tags and the start of an earlier one of the same run.

        A DVC experiment names the run; a plain `dvc repro` leaves it the name that it has.
        """
        name = self.name if EXPERIMENT in self.tags else earlier.name
        return replace(self, name=name, tags=earlier.tags | self.tags, started=earlier.started)


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
class FirstBatch:
    """A .npz file that holds what ``plots.pairs`` takes: what the network sees first.

    It goes to MLflow while a long training has only begun.
    """

    file: str


Message = Metrics | FirstBatch | End


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


def encode(message: RunDescription | Message) -> str:
    """A message as one line of JSON."""
    return json.dumps(asdict(message))


def decode(line: str) -> Message:
    """The message that a line holds."""
    message = json.loads(line)
    for kind in (End, FirstBatch):
        if message.keys() == kind.__dataclass_fields__.keys():
            return kind(**message)
    return Metrics(**message)


def now_ms() -> int:
    """MLflow's time: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def tell_delay(reason: str) -> None:
    """Tell the user in a line on stderr that MLflow gets the rest later, and why."""
    line = f"tracking waits: {reason}; `dvc repro` (the register stage) fills the gap"
    print(line, file=sys.stderr, flush=True)
