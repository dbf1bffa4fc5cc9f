"""The runner: train what the branch says, with files from a remote, and push the results to it.

Two runners never train the same model at the same time: a lease, named by what the model is made
from, makes the second one wait until the remote has the result of the first.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imageclf.files import UserError, read_yaml
from imageclf.params import load_params
from imageclf.project.dvc import default_remote, dvc, written_files
from imageclf.project.folder import DVC_YAML, LOCK, project_root
from imageclf.project.lock import lies_in, md5_of, outs_read_otherwise
from imageclf.team.branch import follow_branch, publish_lock
from imageclf.team.lease import Lease
from imageclf.team.sharing import Tell, fetch_journals, push, run_dvc
from imageclf.tracking.connection import check_access
from imageclf.training.fingerprint import sha256_of, training_digest

REPRO = ("repro", "--pull", "--allow-missing")
BEFORE = "embed"  # the stage before train
SOURCES = ("src/", "stages/")
TOLD = re.compile(r"^(?:Running stage|Stage) '(\w+)'(.*)$", re.MULTILINE)


def run(seconds: float, tell: Tell) -> bool:
    """Reproduce the pipeline with files from the remote, and push the results. Idempotent.

    The outs of a pipeline that fails are pushed too.

    Args:
        seconds: after which a runner without a sign of life counts as dead.
        tell: called with a line of text at each step.

    Returns:
        Whether the pipeline succeeded, and the branch, if there is one, has its dvc.lock.

    Raises:
        UserError: something that it needs is missing, or a remote refuses a push.
    """
    default_remote()
    check_access()
    with alone():
        while True:
            branch = follow_branch()
            fetch_journals(tell)
            _pull_inputs()
            if not run_dvc(*REPRO, BEFORE):
                push(tell)
                return False
            with Lease(training_key(), seconds, tell) as lease:
                if branch and branch.has_moved:
                    tell("the branch has moved on: beginning again")
                    continue
                succeeded = run_dvc(*REPRO, lease=lease)
                push(tell, lease)
                return succeeded and publish_lock(branch, tell)


def training_key() -> str:
    """The sha256 over everything that the fingerprint covers; the data need not be here.

    Raises:
        UserError: neither the cache nor the remote knows the data's md5s.
    """
    written = written_files()

    def content(path: str) -> Any:
        if path.startswith(SOURCES):
            return sha256_of(path)
        return {file: md5 for file, md5 in written.items() if lies_in(file, [path])}

    return training_digest(load_params(), content)


def _pull_inputs() -> None:
    """Pull the files that the stages to run read from earlier stages.

    `dvc repro --pull` does so file by file. But after a file that is in the cache already, as one
    with the content of another is, DVC 3.67 does not pull the next file, and fails.

    Raises:
        UserError: the remote does not have all of it.
    """
    written = written_files()
    _remove_stale_files(written)
    stages = read_yaml(Path(DVC_YAML))["stages"]
    lock = Path(LOCK)
    others = outs_read_otherwise(lock.read_text("utf-8"), written) if lock.exists() else set()
    first = _first_to_run(stages, others)
    if first is None:
        return
    names = [*stages]
    done, to_run = names[: names.index(first)], names[names.index(first) :]
    made = [out for name in done for out in stages[name].get("outs", [])]
    deps = {dep for name in to_run for dep in stages[name]["deps"] if not Path(dep).exists()}
    inputs = [dep for dep in sorted(deps) if lies_in(dep, made)]
    if inputs and not run_dvc("pull", "--", *inputs):
        raise UserError(f"{default_remote()} lacks files: push them from the machine that has them")


def _remove_stale_files(written: Mapping[str, str]) -> None:
    """Remove files of an earlier commit that differ from the newest dvc.lock."""
    for name, md5 in written.items():
        if Path(name).is_file() and md5_of(Path(name)) != md5:
            Path(name).unlink()


def _first_to_run(stages: Mapping[str, Any], others: set[str]) -> str | None:
    """The first stage that has to run, if there is one.

    DVC assumes that a missing file is the one that a stage read last. An earlier stage may have
    written another one since: an out among ``others``.
    """
    told = dict(TOLD.findall(dvc("repro", "--dry", "--allow-missing").stdout))
    # It ends at the first stage that has to run if a file that this reads is missing.
    changed = {name for name in stages if "didn't change" not in told.get(name, "")}
    changed |= {
        name for name, stage in stages.items() if any(lies_in(dep, others) for dep in stage["deps"])
    }
    return next((name for name in stages if name in changed), None)


@contextmanager
def alone() -> Iterator[None]:
    """Lock the folder, in which only one runner may work; a UserError if one does already."""
    from filelock import FileLock, Timeout

    path = project_root() / ".imageclf/runner.lock"
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        raise UserError("a runner works in this folder already") from None
    with held:
        yield
