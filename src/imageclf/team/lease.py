"""A lease: a lock between runners on several machines.

It is a ref at git's remote, ``refs/imageclf/leases/NAME``. Its holder keeps moving the ref to new
commits. A runner that sees no move for too long, by its own clock, takes the lease over, so clocks
need not agree.
"""

import json
import platform
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Self

from imageclf.files import UserError, write_text
from imageclf.project.folder import project_root
from imageclf.project.git import Commit, GitError
from imageclf.team.remote_refs import ROOT, change, commit, fetch, listed

LEASES = f"{ROOT}/leases"
BEATS = 5  # signs of life in the time after which a silent holder counts as dead
FILE = "lease.json"
SHORT_S = 0.2  # between two tries
# Identifies this folder: any other process that held a lease in its name is dead.
IDENTITY = Path(".imageclf/runner-id")
# A clock that goes on while the machine sleeps.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class LeaseLostError(UserError):
    """Another runner may have taken over."""


class Lease:
    """Held while the block runs, which must call ``beat`` every ``pause`` seconds.

    Only one process of a folder may hold leases. Entering waits until another holder finishes or
    counts as dead.

    Args:
        name: of the lease, part of a ref.
        seconds: after which a holder without a sign of life counts as dead.
        tell: called with a line of text when a wait begins, or cannot be ended for others.

    Raises:
        UserError: git's remote cannot be read or changed.
    """

    def __init__(self, name: str, seconds: float, tell: Callable[[str], None]) -> None:
        self._ref, self._seconds, self._tell = f"{LEASES}/{name}", seconds, tell
        self.pause = seconds / BEATS
        self._me, self._beats, self._held, self._sure_until = _identity(), 0, "", 0.0
        # The commits that were pushed, and when: a push may take effect after it seemed to fail.
        self._offered: dict[str, float] = {}

    def __enter__(self) -> Self:
        seen, since, silence = "", _now(), 0.0
        while True:
            current = self._current(self._seconds)
            if current != seen:
                seen, since = current, _now()
                silence = self._silence_of(current) if current else 0.0
            if _now() - since >= silence and self._move(current, timeout=self._seconds):
                return self
            time.sleep(min(self.pause, silence / BEATS) or SHORT_S)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, LeaseLostError):
            return
        try:
            change(self._ref, self._held, "", timeout=self._seconds)
        except GitError as failure:
            self._tell(f"others wait until the lease has run out: {failure}")

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            LeaseLostError: another runner took over, or may have, as git's remote does not answer.
        """
        try:
            if not self._move(self._held, timeout=self.pause):
                raise LeaseLostError("stopped, as another runner has taken over")
        except GitError as error:
            if _now() + 2 * self.pause < self._sure_until:
                return  # the next one may get through
            raise LeaseLostError(f"stopped, as another runner may take over: {error}") from None

    def _current(self, timeout: float) -> str:
        return listed(self._ref, timeout).get(self._ref, "")

    def _silence_of(self, current: str) -> float:
        """Seconds without a sign of life before a takeover; none if the holder is this folder."""
        try:
            record = json.loads(fetch(self._ref, Commit(current))[FILE])
        except GitError:
            return self._seconds  # the ref has moved since
        if record["holder"] == self._me:
            return 0.0
        self._tell(
            f"{record['host']} trains this model: waiting until it is done, or gives no sign for "
            f"{record['seconds']:g} s"
        )
        return float(record["seconds"])

    def _move(self, before: str, timeout: float) -> bool:
        """Move the ref to a new commit; whether the lease is ours now. Raises as ``git`` does."""
        self._beats += 1
        record = {
            "holder": self._me,
            "host": platform.node(),
            "seconds": self._seconds,
            "beat": self._beats,
            "start": uuid.uuid4().hex,
        }
        started = _now()
        after: str = commit({FILE: json.dumps(record).encode()})
        self._offered[after] = started
        try:
            change(self._ref, before, after, timeout)
        except GitError:
            after = self._current(timeout)
            if after == before:
                raise
            if after not in self._offered:
                return False
            # The push took effect, but its answer was lost.
        self._held, self._sure_until = after, self._offered[after] + self._seconds
        return True


def _now() -> float:
    return time.clock_gettime(CLOCK)


def _identity() -> str:
    path = project_root() / IDENTITY
    if not path.exists():
        write_text(path, uuid.uuid4().hex)
    # A copy of the folder has another identity.
    return f"{path.read_text('utf-8')} {platform.node()}:{project_root()}"
