"""Messages: what a training reports, and what else is written to its run.

Some come from other clones of the project, so each is checked when it is read.
"""

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
)

from imageclf.params import Params, tracked_values
from imageclf.project.git import Commit
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.wording import run_name

EXPERIMENT = "DVC_EXP_NAME"
FINGERPRINT = re.compile(r"[0-9a-f]{64}")

# What MLflow takes: https://mlflow.org/docs/latest/python_api/mlflow.client.html
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/ -]+$", max_length=250)]
Title = Annotated[str, StringConstraints(min_length=1, max_length=250)]
Step = Annotated[int, Field(ge=0, lt=1 << 31)]
Milliseconds = Annotated[int, Field(ge=0, lt=253_402_300_800_000)]  # before the year 10000


def _parsed(tags: object) -> Provenance:
    if isinstance(tags, Provenance):
        return tags
    if not isinstance(tags, dict) or not all(isinstance(tag, str) for tag in tags.values()):
        raise ValueError("is no object of strings")
    for name in tags:
        if not Provenance.names(name):
            raise ValueError(f"{name!a} is not known")
    return Provenance.from_tags(tags)


class Checked:
    """A message that is validated when it is read, and admits no other fields."""

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class RunDescription(Checked):
    """The description of a run in MLflow, known before its first epoch.

    Attributes:
        fingerprint: of the model, 64 hexadecimal digits.
        params: tracked parameters by dotted path.
        tags: strings by name, which do not depend on where the model was trained.
        origin: where it was trained and from which commit.
        started: milliseconds since 1970.
    """

    fingerprint: Annotated[str, StringConstraints(pattern=f"^{FINGERPRINT.pattern}$")]
    name: Title
    experiment: Title
    params: dict[Name, Any]
    tags: dict[Name, str]
    origin: Annotated[Provenance, BeforeValidator(_parsed), PlainSerializer(Provenance.tags)]
    started: Milliseconds

    def following(self, earlier: "RunDescription") -> "RunDescription":
        """This description, with the tags and the start of an earlier one of the same run.

        The name is the earlier one, unless this is of a DVC experiment.
        """
        name = self.name if EXPERIMENT in self.tags else earlier.name
        return replace(self, name=name, tags=earlier.tags | self.tags, started=earlier.started)

    def named(self, accuracy: float | None = None) -> "RunDescription":
        """This description, named as ``run_name`` says; ``accuracy`` is that on the test split."""
        return replace(self, name=run_name(self.params, self.tags.get(EXPERIMENT), accuracy))


@dataclass(frozen=True)
class Metrics(Checked):
    """Numbers by name at a step: an epoch, counted from 1, or 0 for the test split.

    ``time`` is in milliseconds since 1970.
    """

    step: Step
    values: dict[Name, float]
    time: Milliseconds


@dataclass(frozen=True)
class End(Checked):
    """The end of a run: FINISHED, FAILED or KILLED, at ``time`` in milliseconds since 1970."""

    status: Literal["FINISHED", "FAILED", "KILLED"]
    time: Milliseconds


@dataclass(frozen=True)
class FirstBatch(Checked):
    """The .npz ``file`` with the first batch that the network sees, as ``plots.pairs`` takes it."""

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
class Note:
    """The description of a run, in Markdown."""

    text: str


@dataclass(frozen=True)
class File:
    """A file, or a folder with its contents, for the ``folder`` of the run's artifacts."""

    path: Path
    folder: str = ""


@dataclass(frozen=True)
class Patch(File):
    """The patch from ``commit`` to the source, for runs of that commit only."""

    commit: Commit | None = None


Item = Message | Dataset | Note | File


def describe_run(
    params: Params,
    fingerprint: str,
    data: Mapping[str, str],
    experiment: str | None = None,
    weights: Mapping[str, str] | None = None,
) -> RunDescription:
    """Describe the run of a model, without its origin.

    Args:
        params: of the training.
        fingerprint: of the model.
        data: the sha256 of each split, by name.
        experiment: the name of the DVC experiment; by default the one that runs now.
        weights: the origin of pretrained weights, if the training began with them.
    """
    tags = {"fingerprint": fingerprint} | {f"data.{split}": data[split] for split in data}
    tags |= {f"weights.{name}": value for name, value in (weights or {}).items()}
    if experiment := experiment or os.environ.get(EXPERIMENT):
        tags[EXPERIMENT] = experiment
    values = tracked_values(params)
    return RunDescription(
        fingerprint=fingerprint,
        name=run_name(values, experiment),
        experiment=params.register_.experiment,
        params=values,
        tags=tags,
        origin=Provenance(),
        started=now_ms(),
    )


@cache
def checked(kind: Any) -> TypeAdapter[Any]:
    """The adapter that reads and writes messages of a kind as JSON, made once and on demand."""
    return TypeAdapter(kind)


def encode(message: RunDescription | Message) -> str:
    """A message as one line of JSON."""
    kind: Any = type(message)
    return json.dumps(checked(kind).dump_python(message))


def decode(line: str | bytes) -> Message:
    """The message in a line of JSON; a ValueError if it is none."""
    message: Message = checked(Message).validate_json(line)
    return message


def now_ms() -> int:
    """MLflow's time: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def tell_delay(reason: str) -> None:
    """Print on stderr that MLflow gets the rest later, and why."""
    line = f"tracking waits: {reason}; `dvc repro` (the register stage) fills the gap"
    print(line, file=sys.stderr, flush=True)
