"""A lease: what one runner does, no other does at the same time, on whichever machine.

It is a ref at git's remote, ``refs/imageclf/leases/NAME``. Its holder moves the ref from commit to
commit while it lives. Whoever sees it stand still for too long takes it over, by a clock of its
own, so that clocks need not agree.
"""

import json
import platform
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from imageclf.files import UserError, write_text
from imageclf.project.folder import project_root
from imageclf.project.git import Commit, GitError
from imageclf.team.remote_refs import ROOT, change, commit, fetch, listed

LEASES = f"{ROOT}/leases"
BEATS = 5  # signs of life that a holder gives in the time after which it is taken for dead
FILE = "lease.json"
SHORT_S = 0.2  # between two tries, when another one was faster
# Names this folder; who holds a lease in its name and is not this process is dead.
IDENTITY = Path(".imageclf/runner-id")
# A machine that sleeps must notice afterwards how long it did.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class LeaseLostError(UserError):
    """Another runner may have taken over."""


class Lease:
    """Held while the block runs, in which ``beat`` has to be called every ``pause`` seconds.

    One process of a folder may hold leases at a time. Entering waits for another holder to finish
    or to fall silent.

    Args:
        name: of what is leased, for a ref.
        seconds: after which a holder that gives no sign is taken for dead.
        tell: called with a line of text when there is a reason to wait, or to wait no more.

    Raises:
        UserError: git's remote cannot be asked or changed.
    """

    def __init__(self, name: str, seconds: float, tell: Callable[[str], None]) -> None:
        self._ref, self._seconds, self._tell = f"{LEASES}/{name}", seconds, tell
        self.pause = seconds / BEATS
        self._me, self._beats, self._held, self._sure_until = _identity(), 0, "", 0.0
        # Commits that the ref was to name, and when that was asked for; one may arrive late.
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, LeaseLostError):
            return
        try:
            change(self._ref, self._held, "", timeout=self._seconds)
        except GitError as failure:
            self._tell(f"others wait until the lease has run out: {failure}")

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            LeaseLostError: another holder took over, or may do so, as git's remote does not answer.
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
        """For how many seconds the holder must give no sign; none if it was this folder."""
        try:
            record = json.loads(fetch(self._ref, Commit(current))[FILE])
        except GitError:
            return self._seconds  # it has moved on, which the next look will tell
        if record["holder"] == self._me:
            return 0.0
        self._tell(
            f"{record['host']} trains this model: waiting until it is done, or gives no sign for "
            f"{record['seconds']:g} s"
        )
        return float(record["seconds"])

    def _move(self, before: str, timeout: float) -> bool:
        """Let the ref name a new commit of ours; whether it is ours now, and not another one's.

        Raises:
            GitError: git's remote does not answer, or does not change it.
        """
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
            # It arrived, its answer did not.
        self._held, self._sure_until = after, self._offered[after] + self._seconds
        return True


def _now() -> float:
    return time.clock_gettime(CLOCK)


def _identity() -> str:
    path = project_root() / IDENTITY
    if not path.exists():
        write_text(path, uuid.uuid4().hex)
    # A copy of the folder is another one.
    return f"{path.read_text()} {platform.node()}:{project_root()}"
