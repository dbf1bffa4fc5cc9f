"""Rebuild: a model is made again in a new folder, and compared with what was recorded.

The folder is a clone of the project at the commit of the training, with its patch, params.yaml and
dvc.lock. It has its own cache and tracking store, so that nothing in the project changes; it reads
the project's cache as a remote.
"""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console

from imageclf.files import UserError, read_json, sha256_file
from imageclf.lineage.find import Lineage, fingerprint_of
from imageclf.lineage.source import source_of
from imageclf.project.dvc import (
    dvc_in_terminal,
    laid_out,
    missing,
    missing_on_remote,
    read_outs,
    shared_config,
    write_config,
)
from imageclf.project.folder import CLASSIFIER, LOCK, METRICS, ONNX, PARAMS
from imageclf.project.git import Commit, git_if_any
from imageclf.project.integrity import check, copies_of
from imageclf.project.lock import Out, bare_pipeline, lacks, md5_of, recorded_sources
from imageclf.tracking.connection import QUIET, Store, own_database
from imageclf.tracking.journal import PATCH, Journal
from imageclf.tracking.patch import split_patch

CACHE = "cache-of-the-project"
Again = Literal["nothing", "training", "everything"]


@dataclass(frozen=True)
class Rebuilt:
    """An out after the rebuild.

    Attributes:
        md5: of what is in the folder now; None if it is missing.
        made: whether a stage made it; otherwise it was restored from a cache.
        differing: the files of it that are not as recorded, where the project's cache tells them.
    """

    recorded: Out
    md5: str | None
    made: bool
    differing: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether it has the recorded bytes."""
        return self.md5 == self.recorded.md5


@dataclass(frozen=True)
class Result:
    """The comparison of a rebuilt model with what was recorded.

    Attributes:
        same_version: whether the ONNX file is that of the registered version that was asked for.
        machine: the tags of the machine that differ: the recorded value and the present one.
        accuracy: on the test split: recorded, None if unknown, and present.
        tolerance: how far the accuracies may differ on another machine.
    """

    outs: list[Rebuilt]
    same_version: bool
    same_fingerprint: bool
    machine: dict[str, tuple[str | None, str]]
    accuracy: tuple[float | None, float]
    tolerance: float

    @property
    def identical(self) -> bool:
        """Whether every file has the recorded bytes."""
        return self.same_version and all(out.same for out in self.outs)

    @property
    def close(self) -> bool:
        """Whether only stages made other files, on another machine and within the tolerance."""
        before, now = self.accuracy
        if not self.machine or not self.same_fingerprint or before is None:
            return False
        if any(not out.same and not out.made for out in self.outs):
            return False
        return abs(before - now) <= self.tolerance


def prepare(lineage: Lineage, folder: Path) -> Path:
    """Make the folder, with the source, the parameters and the dvc.lock of the training.

    Returns the project's folder in it, which is a subfolder if the project is one of its
    repository.

    Raises:
        UserError: the folder is not empty, or something of the training is unknown; no folder is
            left then.
    """
    commit = source_of(lineage).commit
    if LOCK not in lineage.files or PARAMS not in lineage.files:
        raise UserError("its params.yaml and dvc.lock were not kept: it was never registered")
    if lineage.provenance.dirty and PATCH not in lineage.files:
        raise UserError(f"its source differed from the commit {commit}, and no {PATCH} was kept")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty: name another folder")
    prefix = (git_if_any("rev-parse", "--show-prefix") or b"").decode().strip()
    config, project = shared_config(), folder / prefix
    try:
        _check_out(commit, split_patch(lineage.files.get(PATCH, b""))[1], folder)
        for name in (PARAMS, LOCK):
            (project / name).write_bytes(lineage.files[name])
        source = {f"'remote \"{CACHE}\"'": {"url": config["cache"]["dir"]}}
        own = {"cache": {"dir": str(project.absolute() / ".dvc/cache")}}
        write_config(project / ".dvc/config.local", config | source | own)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return project


def _check_out(commit: Commit, patch: bytes, folder: Path) -> None:
    repository = git_if_any("rev-parse", "--show-toplevel")
    if repository is None:
        raise UserError("this is no git repository: run this in the folder of the project")
    # A clone of a local folder has all its objects, also commits that are on no branch.
    origin, place = repository.decode().rstrip("\n"), str(folder)
    if git_if_any("clone", "--quiet", "--no-checkout", "--", origin, place) is None:
        raise UserError(f"git cannot clone {origin} to {folder}")
    if git_if_any("-C", place, "checkout", "--quiet", "--detach", commit, "--") is None:
        raise UserError(f"git cannot check out {commit} in {folder}")
    if patch and git_if_any("-C", place, "apply", "--whitespace=nowarn", feed=patch) is None:
        raise UserError(f"git cannot apply {PATCH} in {folder}")


def other_sources(lineage: Lineage, folder: Path) -> list[str]:
    """The sources in a prepared folder that differ from those that dvc.lock records."""
    recorded = recorded_sources(lineage.files[LOCK].decode())
    return [path for path, md5 in recorded.items() if md5_of(folder / path) != md5]


def rebuild(
    lineage: Lineage,
    folder: Path,
    tolerance: float,
    again: Again,
    tell: Callable[[str], None],
) -> Result | None:
    """Make a model again; the output of DVC goes to the terminal.

    Args:
        lineage: of the model.
        folder: new or empty.
        tolerance: how far the test accuracies may differ on another machine.
        again: what is made again in any case, and not taken from a cache. "everything" is all but
            the raw data and the pretrained weights.
        tell: called with a line of text at each step.

    Returns the comparison, or None if a stage failed.

    Raises:
        UserError: as ``prepare``, or the project's cache holds another file than recorded.
    """
    cache = Path(shared_config()["cache"]["dir"])
    wanted = [out for out in lineage.outs if _is_restored(out.stage, again)]
    tell("the md5s in the project's cache")
    _check_cache(lineage.outs, cache)
    project = prepare(lineage, folder)
    tell(f"{folder} holds the source, params.yaml and dvc.lock of {lineage.fingerprint[:8]}")
    for path in other_sources(lineage, project):
        tell(f"{path} is not the file that dvc.lock records")
    outs = [project / out.path for out in lineage.outs]
    if wanted:
        _restore([out.path for out in wanted], project, tell)
    before = {path: _stamp(path) for path in outs}
    if not (project / CLASSIFIER).exists():
        _make_store(project)
    tell("dvc repro")
    if not _dvc(project, "repro", "--", *dict.fromkeys(out.stage for out in lineage.outs)):
        return None
    made = {str(path.relative_to(project)) for path in outs if _stamp(path) != before[path]}
    tell("the md5s of what was restored and made")
    return _compare(lineage, project, cache, made, tolerance)


def _is_restored(stage: str, again: Again) -> bool:
    if again == "everything":
        return stage in {"fetch", "weights"}
    return again == "nothing" or stage != "train"


def _check_cache(outs: list[Out], cache: Path) -> None:
    wrong, _ = check(
        [copy for out in outs for copy in copies_of(out, cache, None)], Console(stderr=True)
    )
    if wrong:
        first = wrong[0]
        raise UserError(
            f"{first.name} in the cache is not the file that dvc.lock records: remove "
            f"{first.path} and try again, or see what `imageclf verify` says"
        )


def _restore(paths: list[str], project: Path, tell: Callable[[str], None]) -> None:
    """Fetch what the project's cache has, and the rest from the default remote."""
    pull = ("pull", "--allow-missing")
    tell("what the project's cache has")
    _dvc(project, *pull, "--remote", CACHE, "--", *paths)
    lacking = missing(project)
    if not any(lacks(lacking, path) for path in paths):
        return
    try:
        missing_on_remote(project)  # `dvc pull` would wait for one that does not answer
    except UserError as error:
        tell(f"nothing from a remote: {error}")
        return
    tell("what the remote has")
    _dvc(project, *pull, "--", *paths)


def _dvc(project: Path, *arguments: str) -> bool:
    """Run `dvc` with this process's interpreter and the folder's store; whether it succeeds."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "DVC_EXP", "DVC_STAGE", "DVC_ROOT"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    variables = kept | {"PATH": path, "MLFLOW_TRACKING_URI": own_database(project.absolute())}
    with dvc_in_terminal(*arguments, at=project, environment=variables) as process:
        return process.wait() == 0


def _make_store(project: Path) -> None:
    """Make MLflow's database, so that the training need not wait for its migrations."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    Store(project, own_database(project.absolute())).experiments()


def _stamp(path: Path) -> tuple[int, int] | None:
    """Inode and time of an out, which change when a stage writes it: DVC deletes it before."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def _compare(
    lineage: Lineage, project: Path, cache: Path, made: set[str], tolerance: float
) -> Result:
    version, known = lineage.version, lineage.provenance.machine
    record = Journal(lineage.fingerprint, project).record
    machine = record.description.origin.machine if record else {}
    return Result(
        outs=[_rebuilt(out, project, cache, out.path in made) for out in lineage.outs],
        same_version=version is None or sha256_file(project / ONNX) == version.sha256,
        same_fingerprint=fingerprint_of(project / CLASSIFIER) == lineage.fingerprint,
        machine={
            name: (known.get(name), value)
            for name, value in machine.items()
            if known.get(name) != value
        },
        accuracy=(_recorded_accuracy(lineage), read_json(project / METRICS)["accuracy"]),
        tolerance=tolerance,
    )


def _rebuilt(out: Out, project: Path, cache: Path, made: bool) -> Rebuilt:
    here = [copy for copy in copies_of(out, cache, project) if not copy.is_cached]
    wrong, missing = check(here, Console(stderr=True))
    if here and not wrong and not missing:
        return Rebuilt(out, out.md5, made)
    names = sorted({copy.name for copy in (*wrong, *missing)} - {out.path})
    return Rebuilt(out, md5_of(project / out.path), made, names)


def _recorded_accuracy(lineage: Lineage) -> float | None:
    """The accuracy on the test split, from the cache or from MLflow."""
    lock = lineage.files[LOCK].decode()
    with laid_out({"dvc.yaml": bare_pipeline(lock), LOCK: lock}) as folder:
        figures = read_outs(folder, [str(METRICS)]).get(str(METRICS), {})
    tracked = lineage.run.metrics.get("test_accuracy") if lineage.run else None
    accuracy: float | None = figures.get("accuracy", tracked)
    return accuracy
