"""Lineage: what a model was made from, according to MLflow, the journal and the workspace."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imageclf.files import UserError
from imageclf.inference.prediction import MODEL_FILE, load_exported
from imageclf.lineage.names import MODEL_NAMES, is_version
from imageclf.lineage.snapshots import Snapshot, params_in, pipeline_files
from imageclf.network.description import MODEL_JSON, read_fingerprint
from imageclf.project.folder import CLASSIFIER, LOCK, PARAMS
from imageclf.project.git import git_if_any
from imageclf.project.lock import Out, recorded_outs
from imageclf.tracking.connection import TrackingError
from imageclf.tracking.journal import PATCH, Journal, JournalError, Record, journals
from imageclf.tracking.patch import split_patch
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.queries import (
    KEPT,
    TrackedRun,
    Version,
    find_by_name,
    find_runs,
    find_version,
)

DIGITS = re.compile(r"[0-9a-f]{8,64}")  # of a fingerprint, or of a run's id
REFUSED_SHOWN = 60  # characters


@dataclass(frozen=True)
class Lineage:
    """What identifies a model and what it was made from.

    Attributes:
        version: the registered version that was asked for, if any.
        files: ``params.yaml``, ``dvc.lock`` and ``changes.patch`` of the training, if known.
        unknown: what could not be found out, and why; a line each.
    """

    fingerprint: str
    version: Version | None = None
    run: TrackedRun | None = None
    record: Record | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def provenance(self) -> Provenance:
        """Where it was trained, and from which source."""
        known = self.record.description.origin if self.record else Provenance()
        return known.updated(self.run.provenance) if self.run else known

    @property
    def tags(self) -> dict[str, str]:
        """The digests of its data, and other tags that do not depend on where it was trained."""
        known = self.record.description.tags if self.record else {}
        return known | (self.run.tags if self.run else {})

    @property
    def params(self) -> dict[str, Any]:
        """Every parameter but those of ``runtime``, by dotted path."""
        if PARAMS in self.files:
            return params_in(self.files[PARAMS])
        if self.record:
            return self.record.description.params
        return dict(self.run.params) if self.run else {}

    @property
    def outs(self) -> list[Out]:
        """The pipeline's outs in dvc.lock."""
        return recorded_outs(self.files[LOCK].decode()) if LOCK in self.files else []

    @property
    def changed_files(self) -> list[str]:
        """The files that differed from the commit."""
        left_out, patch = split_patch(self.files.get(PATCH, b""))
        listed = (git_if_any("apply", "--numstat", "-z", feed=patch) or b"") if patch else b""
        names = [line.split(b"\t")[-1] for line in listed.split(b"\0") if line]
        return [*(name.decode(errors="replace") for name in names), *left_out]

    @property
    def left_out(self) -> list[str]:
        """The files that differed from the commit and are not in the patch, with the reasons."""
        return split_patch(self.files.get(PATCH, b""))[0]


def find(what: str) -> Lineage:
    """The lineage of a model, without the state of DVC's cache and remotes.

    Args:
        what: any of ``MODEL_NAMES``.

    Raises:
        UserError: there is no such model, or MLflow is needed to find it and cannot be read.
    """
    known = find_here(what)
    return with_run(known) if known else _in_mlflow(what)


def find_here(what: str) -> Lineage | None:
    """What the workspace and the journal tell of a model; None if only MLflow may know it.

    Raises:
        UserError: it is a path that holds no model, or digits of several fingerprints.
    """
    if Path(what).exists():
        return _with_files(Lineage(fingerprint_of(Path(what))))
    if not DIGITS.fullmatch(what):
        return None
    known = {journal.fingerprint for journal in journals()}
    known |= {fingerprint_of(CLASSIFIER)} if CLASSIFIER.exists() else set()
    found = _one_of(what, {each for each in known if each.startswith(what)})
    return _with_files(Lineage(found)) if found else None


def with_run(lineage: Lineage) -> Lineage:
    """The lineage with what MLflow tells; if it cannot be read, the reason is in ``unknown``."""
    try:
        runs, unknown = find_runs(lineage.fingerprint), []
    except TrackingError as error:
        runs, unknown = [], [str(error)]
    return _with_files(replace(lineage, run=next(iter(runs), None), unknown=unknown))


def version_named(what: str) -> Version:
    """The registered version of a model, the newest one if there are several.

    Args:
        what: any of ``MODEL_NAMES``.

    Raises:
        UserError: as ``find``, or the model was never registered.
    """
    found = find(what)
    versions = found.run.versions if found.run else []
    if version := found.version or next(reversed(versions), None):
        return version
    reason = f" ({found.unknown[0]})" if found.unknown and not found.run else ""
    raise UserError(f"{what} has no registered version{reason}")


def uri_named(what: str) -> str:
    """The address of a registered version, such as ``models:/NAME/3``; raises likewise."""
    if is_version(what):
        return f"models:/{what.removeprefix('models:/')}"
    version = version_named(what)
    return f"models:/{version.name}/{version.number}"


def _in_mlflow(what: str) -> Lineage:
    """The model of a registered version, or of a run by its id or name."""
    name = what.removeprefix("models:/")
    if is_version(name):
        version, run = find_version(f"models:/{name}")
        return _with_files(Lineage(run.fingerprint, version, run))
    unknown = ""
    try:
        if DIGITS.fullmatch(name) and (runs := find_runs(name)):
            _one_of(name, {run.fingerprint for run in runs})
            return _with_files(Lineage(runs[0].fingerprint, run=runs[0]))
        if "/" not in name and (found := find_by_name(name)):
            return _with_files(Lineage(found[1].fingerprint, *found))
    except TrackingError as error:
        unknown = f" ({error})"
    raise UserError(f"{what} names no model{unknown}: give {MODEL_NAMES}")


def _one_of(digits: str, found: set[str]) -> str | None:
    if len(found) > 1:
        raise UserError(f"{digits} may be {' or '.join(sorted(found))}: give more digits")
    return next(iter(found), None)


def fingerprint_of(path: Path) -> str:
    """The fingerprint in a model's folder or an exported file; a UserError if there is none."""
    if path.is_dir() and (path / MODEL_JSON).exists():
        return read_fingerprint(path)
    folder = path if path.is_dir() else path.parent
    exported = path if path.suffix == ".onnx" else folder / MODEL_FILE
    if not exported.is_file() or path.suffix not in {"", ".onnx", ".pt2"}:
        raise UserError(f"{path} holds no model: neither {MODEL_JSON} nor {MODEL_FILE} is there")
    return load_exported(exported).fingerprint


def _with_files(lineage: Lineage) -> Lineage:
    """With the files of the training, from the run, the journal or the workspace."""
    journal = Journal(lineage.fingerprint)
    kept = {path.name: path.read_bytes() for path in journal.folder.glob("*") if path.name in KEPT}
    places = [lineage.run.files if lineage.run else {}, kept, _workspace_files(lineage.fingerprint)]
    # params.yaml and dvc.lock belong together; the patch is the training's.
    files = dict(next((place for place in places if LOCK in place), {}))
    files |= next(({PATCH: place[PATCH]} for place in places if PATCH in place), {})
    found = replace(lineage, files=files)
    try:
        found = replace(found, record=journal.record)
    except JournalError as error:
        found = replace(found, unknown=[*lineage.unknown, f"what the journal holds: {error}"])
    return replace(found, unknown=[*found.unknown, *_gaps(found)])


def _workspace_files(fingerprint: str) -> dict[str, bytes]:
    """The files of the workspace, if the model was made from them."""
    files = pipeline_files(Path())
    if LOCK not in files or not (CLASSIFIER / MODEL_JSON).exists():
        return {}
    if fingerprint_of(CLASSIFIER) != fingerprint or Snapshot("", files).contradiction():
        return {}
    return {name: text.encode() for name, text in files.items() if name in KEPT}


def _gaps(lineage: Lineage) -> Iterator[str]:
    """What is missing from a lineage, unless the reason is that MLflow cannot be read."""
    if not lineage.run and not lineage.unknown:
        yield "MLflow has no run of it (`imageclf sync` makes one from the files)"
    if LOCK not in lineage.files:
        yield "no dvc.lock of it was kept: it was never registered"
    for tag, value in lineage.provenance.refused.items():
        yield f"its {tag} is invalid: {value[:REFUSED_SHOWN]!a}"
    if lineage.provenance.commit is None:
        yield "it is not known from which commit it was trained"
    elif lineage.provenance.dirty and PATCH not in lineage.files:
        yield "the source differed from the commit, and no changes.patch was kept"
    for name in lineage.left_out:
        yield f"how {name} differed from the commit: it is not in changes.patch"
