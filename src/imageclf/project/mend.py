"""What a `dvc` leaves that was killed or found the disk full, recognised and mended.

DVC writes ``.dvc/tmp/rwlock`` and ``dvc.lock`` in place, so it can leave them empty or torn. It
writes them only while it holds ``.dvc/tmp/lock`` and ``.dvc/tmp/rwlock.lock``, which end with the
process. With both held here, what is empty or torn is a leftover.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from imageclf.files import UserError, write_text
from imageclf.project.folder import LOCK
from imageclf.project.git import git_if_any
from imageclf.project.processes import RWLOCK, holders, is_dvc, lives, stage_locks

DVC_LOCKS = (RWLOCK.with_name("lock"), RWLOCK.with_name("rwlock.lock"))
LEFT = "left by a `dvc` that was killed or found the disk full"
LOCK_WAIT_S = 5.0  # for a stage that ends because its dvc was killed
HEADING = "schema: '2.0'\nstages:\n"
STAGE = re.compile(r"^  (\S+):\n((?:    .*\n)*)", re.MULTILINE)
# The last line of a dvc.lock that was cut between two lines: one that begins something.
CUT = re.compile(
    r"^(schema:.*|stages:|  \S+:|    (cmd|deps|params|outs):|      params\.yaml:"
    r"|    - path: .*|      hash: .*)\n\Z",
    re.MULTILINE,
)


def mend() -> list[str]:
    """Mend what a killed `dvc` left in the current project; returns a line for each thing mended.

    Raises:
        UserError: a `dvc` command is at work here, or dvc.lock is damaged in another way.
    """
    if not (_rwlock_is_left() or _lock_is_torn()):
        return []
    told = []
    with _alone():
        if _rwlock_is_left():
            RWLOCK.unlink()
            told.append(f"removed {RWLOCK}, {LEFT}")
        if _lock_is_torn():
            told.append(_mend_lock())
    return told


def _rwlock_is_left() -> bool:
    """Whether the rwlock is torn, or names a process that lives and is no `dvc`.

    That one has the number of a killed `dvc`. DVC itself drops the processes that are dead.
    """
    found = holders()
    return found is None or any(lives(pid) and not is_dvc(pid) for pid in found)


def _lock_is_torn() -> bool:
    return Path(LOCK).is_file() and is_torn_lock(Path(LOCK).read_bytes())


def is_torn_lock(content: bytes) -> bool:
    """Whether a dvc.lock, which DVC writes from the top, ends too early."""
    text = content.decode(errors="replace")
    return not text.endswith("\n") or "\0" in text or CUT.search(text) is not None


@contextmanager
def _alone() -> Iterator[None]:
    """Keep `dvc` from this project during the block; a UserError where it is at work."""
    from filelock import FileLock, Timeout

    busy = "a `dvc` command is at work here: type `imageclf mend` when it has ended"
    with ExitStack() as held:
        try:
            for path in (*DVC_LOCKS, *stage_locks()):
                held.enter_context(FileLock(path).acquire(timeout=LOCK_WAIT_S))
        except Timeout:
            raise UserError(busy) from None
        if any(lives(pid) and is_dvc(pid) for pid in holders() or ()):
            raise UserError(busy)
        yield


def _mend_lock() -> str:
    """Keep the whole stages of a torn dvc.lock, and take the others from the last commit."""
    from imageclf.project.lock import locked_stages

    text = Path(LOCK).read_bytes().rstrip(b"\0").decode(errors="replace")
    last = max((found.start() for found in STAGE.finditer(text)), default=0)
    if last:
        locked_stages(text[:last])
    kept = dict(STAGE.findall(text[:last]))
    committed = dict(STAGE.findall((git_if_any("show", f"HEAD:./{LOCK}") or b"").decode()))
    if whole := committed | kept:
        stages = "".join(f"  {name}:\n{entry}" for name, entry in whole.items())
        locked_stages(HEADING + stages)
        write_text(Path(LOCK), HEADING + stages)
    else:
        Path(LOCK).unlink()
    return (
        f"mended {LOCK}, {LEFT}: it has {len(kept)} stages of its own and {len(whole) - len(kept)} "
        "of the last commit; `dvc repro` takes the rest from its cache"
    )
