"""A training in this process, or in two others that work together as torchrun would let them."""

import io
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.images import learnable_split
from helpers.stopped_training import StopError, stop_after
from imageclf.data.prepared import Split, pixel_counts, stats_of
from imageclf.files import UserError
from imageclf.network.classifier import build_classifier
from imageclf.params import Params
from imageclf.training.batch_sharing import Group
from imageclf.training.loop import Training

PROCESSES = 2


@dataclass(frozen=True)
class Job:
    """A training: of which images, from which state (a checkpoint file's bytes), to which step.

    ``double`` lets the network compute in double precision.
    """

    params: Params
    train: Split
    val: Split
    state: bytes = b""
    stop_after: int = -1
    double: bool = False


@dataclass(frozen=True)
class Outcome:
    """Where a training stands in the end; ``error`` is the UserError that ended it."""

    losses: list[float]
    state: bytes
    error: str = ""

    @property
    def values(self) -> dict[str, Any]:
        loaded: dict[str, Any] = torch.load(io.BytesIO(self.state), weights_only=True)
        return loaded


def job(params: Params, images: int = 200, val_images: int = 60, side: int = 8, **more: Any) -> Job:
    """On images of four classes, of which the last is rare in the train split."""
    train, val = (learnable_split(n, seed, side) for n, seed in ((2 * images, 0), (val_images, 1)))
    kept = np.flatnonzero((train.labels < 3) | (np.arange(len(train)) % 3 == 0))[:images]
    return Job(params, Split(train.images[kept], train.labels[kept]), val, **more)


def carry_out(task: Job, group: Group | None = None) -> Outcome:
    """Train, in this process or its part of a group's work."""
    torch.set_num_threads(1)
    torch.manual_seed(task.params.seed)
    stats, shape = stats_of(pixel_counts(task.train.images)), task.train.images.shape[1:]
    classes = int(task.train.labels.max()) + 1
    classifier = build_classifier(task.params.model, stats, shape, classes)
    if task.double:
        classifier.double()
    training = Training(task.params, classifier, task.train, task.val, classes, group)
    if task.state:
        training.restore(torch.load(io.BytesIO(task.state), weights_only=True))
    stop_after(training, task.stop_after)
    error = ""
    try:
        for _ in training.run():
            pass
    except StopError:
        pass
    except UserError as problem:
        error = str(problem)
    file = io.BytesIO()
    torch.save(training.state(), file)
    losses = [loss for each in training.history for loss in (each.train_loss, each.val_loss)]
    return Outcome(losses, file.getvalue(), error)


class Pair:
    """Two processes that wait for jobs."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def __call__(self, task: Job) -> Outcome:
        """Let both do it, and see that they agree on everything to the last bit."""
        for pipe in self._pipes:
            pipe.send(task)
        first, second = (pipe.recv() for pipe in self._pipes)
        assert first.losses == second.losses
        assert first.error == second.error
        assert _same(first.values, second.values)
        outcome: Outcome = first
        return outcome


@contextmanager
def two_processes(folder: Path) -> Iterator[Pair]:
    """Starting them takes as long as importing torch."""
    spawn = multiprocessing.get_context("spawn")
    pipes, members = [], []
    for rank in range(PROCESSES):
        ours, theirs = spawn.Pipe()
        arguments = (rank, f"file://{folder}/rendezvous", theirs)
        members.append(spawn.Process(target=_member, args=arguments, daemon=True))
        pipes.append(ours)
        members[-1].start()
        theirs.close()  # so that a member that dies ends our waiting
    try:
        yield Pair(pipes)
    finally:
        for pipe, member in zip(pipes, members, strict=True):
            pipe.close()
            member.join()


def _member(rank: int, rendezvous: str, pipe: Connection) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=rendezvous, rank=rank, world_size=PROCESSES
    )
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            torch.distributed.destroy_process_group()
            return
        pipe.send(carry_out(task, Group(rank, PROCESSES)))


def _same(ours: Any, theirs: Any) -> bool:
    """Whether two states are equal but for times and speeds."""
    if isinstance(ours, dict):
        compared = ours.keys() - {"seconds", "images_per_second"}
        return ours.keys() == theirs.keys() and all(_same(ours[k], theirs[k]) for k in compared)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, torch.Tensor):
        return torch.allclose(ours, theirs, rtol=0, atol=0, equal_nan=True)
    return bool(ours == theirs)
