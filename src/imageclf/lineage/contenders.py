"""Contenders: models by name, with the figures and predictions that a comparison needs.

Both are among the artifacts of a model's run, and in DVC's cache under the md5s of its dvc.lock.
"""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from imageclf.evaluation.comparison import Contender, read_answers
from imageclf.files import UserError, read_json
from imageclf.lineage.find import Lineage, find
from imageclf.lineage.snapshots import committed
from imageclf.network.description import MODEL_JSON, read_fingerprint
from imageclf.project.dvc import shared_config
from imageclf.project.folder import CLASSIFIER, LOCK, METRICS, PARAMS, PREDICTIONS, PREPARED
from imageclf.project.git import Commit, commit_in, git_if_any
from imageclf.project.integrity import recorded_file
from imageclf.tracking.connection import TrackingError
from imageclf.tracking.queries import download_files, find_runs, list_runs
from imageclf.tracking.registry import opponent

WORKSPACE = "workspace"
DIGESTS = PREPARED / "digests.json"


def named(what: str) -> Contender:
    """The model in the workspace, of a commit or as ``find`` names it, with what is known of it.

    Raises:
        UserError: there is no such model, or a file of it is damaged.
    """
    if what == WORKSPACE:
        if not CLASSIFIER.exists():
            raise UserError("nothing was trained here yet: type `dvc repro`, or name two models")
        return contender(find(str(CLASSIFIER)), "the workspace")
    try:
        lineage = find(what)
    except UserError:
        if (commit := _commit(what)) is None:
            raise
        return contender(_of_commit(commit), f"the commit {commit[:7]}")
    return contender(lineage, _title(lineage))


def rival(model: Contender) -> Contender | None:
    """The champion of a model's name, or the one that it replaced if the model is the champion.

    Returns None if there is no other.

    Raises:
        UserError: MLflow cannot be read, or a file of the champion is damaged.
    """
    name = str(model.params["register.name"])
    version = opponent(name, model.fingerprint)
    return None if version is None else named(f"models:/{name}/{version}")


def contender(lineage: Lineage, title: str) -> Contender:
    """A model with its figures and predictions, from its run or else from DVC's cache."""
    with TemporaryDirectory() as folder:
        wanted = [METRICS, PREDICTIONS]
        found = download_files(lineage.run.id, wanted, Path(folder)) if lineage.run else {}
        digest = lineage.tags.get("data.test", "")
        lacking = {*wanted, *(() if digest else (DIGESTS,))} - found.keys()
        found |= _recorded_files(lineage, lacking)
        if not digest and DIGESTS in found:
            digest = read_json(found[DIGESTS])["test"]
        return Contender(
            title=title,
            fingerprint=lineage.fingerprint,
            params=lineage.params,
            figures=read_json(found[METRICS]) if METRICS in found else {},
            test_digest=digest,
            answers=read_answers(found[PREDICTIONS]) if PREDICTIONS in found else None,
        )


def _recorded_files(lineage: Lineage, paths: Iterable[Path]) -> dict[Path, Path]:
    """Those of the files that are in the cache or the workspace as dvc.lock records them."""
    if not paths or not lineage.outs:
        return {}
    cache = Path(shared_config()["cache"]["dir"])
    found = {path: recorded_file(path, lineage.outs, cache) for path in paths}
    return {path: file for path, file in found.items() if file}


def _title(lineage: Lineage) -> str:
    versions = lineage.run.versions if lineage.run else []
    version = lineage.version or next(reversed(versions), None)
    if version:
        aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
        return f"{version.name} {version.number}{aliases}"
    return lineage.run.name if lineage.run else lineage.fingerprint[:8]


def _commit(revision: str) -> Commit | None:
    found = git_if_any(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    return commit_in(found.decode().strip()) if found else None


def _of_commit(commit: Commit) -> Lineage:
    """The model in the dvc.lock of a commit, or else the only one that was trained from it."""
    if snapshot := committed(commit):
        files = {name: snapshot.files[name].encode() for name in (PARAMS, LOCK)}
        return _with_run(Lineage("", files=files))
    found = sorted({run.fingerprint for run in list_runs() if run.provenance.commit == commit})
    if not found:
        raise UserError(
            f"the commit {commit[:7]} has no dvc.lock, and MLflow no run that was trained from it: "
            "`imageclf runs` lists the models"
        )
    if len(found) > 1:
        models = ", ".join(fingerprint[:8] for fingerprint in found)
        raise UserError(f"{len(found)} models were trained from the commit {commit[:7]}: {models}")
    return find(found[0])


def _with_run(lineage: Lineage) -> Lineage:
    """With the fingerprint of the model in its dvc.lock, and its run, as far as known."""
    with TemporaryDirectory() as folder:
        described = _recorded_files(lineage, [CLASSIFIER / MODEL_JSON])
        if not described:
            return lineage
        shutil.copy(described[CLASSIFIER / MODEL_JSON], Path(folder, MODEL_JSON))
        fingerprint = read_fingerprint(Path(folder))
    try:
        run = next(iter(find_runs(fingerprint)), None)
    except TrackingError:  # DVC's cache may have all that is needed
        run = None
    return replace(lineage, fingerprint=fingerprint, run=run)
