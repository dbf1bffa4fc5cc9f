"""Worker processes, one per core, that end when the process that started them ends."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any, TypeVar

from imageclf.files import UserError
from imageclf.system.machine import cores, keep_freed_memory

HAS_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
Result = TypeVar("Result")


def prepare_workers(*modules: str) -> None:
    """Start to import modules, by name, in the background, once for all later workers."""
    if HAS_SERVER:
        forkserver.set_forkserver_preload(list(modules))
        forkserver.ensure_running()


def start_workers(count: int) -> ProcessPoolExecutor:
    """A pool of processes, which end when it is no longer referenced."""
    # A fork of a process with threads may hang; the fork server has no threads.
    context = multiprocessing.get_context("forkserver" if HAS_SERVER else "spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_begin)


@contextmanager
def mapping(over_processes: bool) -> Iterator[Callable[..., Iterator[Any]]]:
    """``map``, or a ``map`` over one process per core.

    Calls that are still waiting when the block ends are cancelled.

    Raises:
        UserError: a worker died.
    """
    if not over_processes:
        yield map
        return
    pool = start_workers(cores())
    try:
        with _death_told():
            yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    pool: Executor, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]], ahead: int
) -> Iterator[Result]:
    """The results of the calls in order, with at most ``ahead`` calls submitted in advance.

    Raises:
        UserError: a worker died.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        with _death_told():
            for call in calls:
                waiting.append(pool.submit(function, *call))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def _death_told() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError("a worker process died: is there enough memory? Try again") from error


def _begin() -> None:
    keep_freed_memory()
    # Ctrl-C is for the parent, which then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
