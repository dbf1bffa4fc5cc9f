"""The processes of DVC and of its stages that are at work in the project's folder."""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imageclf.files import UserError
from imageclf.system.parent import end_with_parent

RWLOCK = Path(".dvc/tmp/rwlock")  # the processes that read and write outs
LOCKS = Path(".imageclf/stages")  # of stages that run
WAIT_S = 20.0  # until a process has ended, the `dvc` of which was killed


def holders() -> set[int] | None:
    """The ids of the processes in the current project's rwlock; None if it is torn.

    DVC removes its entries when it ends, unless it is killed.
    """
    content = RWLOCK.read_bytes() if RWLOCK.is_file() else b"{}"
    try:
        json.loads(content)
    except ValueError:
        return None
    return {int(pid) for pid in re.findall(rb'"pid": (\d+)', content)}


def lives(pid: int) -> bool:
    """Whether there is a process with this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def is_dvc(pid: int) -> bool:
    """Whether a process runs `dvc`; True where the system does not tell (no /proc)."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return any(Path(os.fsdecode(part)).name == "dvc" for part in command.split(b"\0"))


@contextmanager
def under_dvc() -> Iterator[None]:
    """End this process if its `dvc` is killed, which could not record what the stage writes.

    A `dvc repro` that follows at once may start the stage while its earlier process still ends, so
    the block begins when that process has ended. Without `dvc` nothing is done.

    Raises:
        UserError: the `dvc` has been killed, or another process of the stage does not end.
    """
    if os.environ.pop("DVC_STAGE", None) is None:  # the processes that this one starts have none
        yield
        return
    end_with_parent(is_dvc)
    if (running := holders()) and not any(map(lives, running)):
        raise UserError("the `dvc` that started this stage was killed")
    from filelock import FileLock, Timeout

    name = Path(sys.argv[0]).stem
    LOCKS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(LOCKS / f"{name}.lock")
    try:
        held = lock.acquire(timeout=WAIT_S)
    except Timeout:
        raise UserError(f"another process runs the stage {name} in this folder") from None
    with held:
        yield


def stage_locks() -> list[Path]:
    """The locks of the stages that have run in this folder."""
    return sorted(LOCKS.glob("*.lock"))
