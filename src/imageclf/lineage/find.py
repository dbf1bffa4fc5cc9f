"""Lineage: what a model was made from, according to MLflow, the journal and the workspace."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imageclf.files import UserError
from imageclf.inference.prediction import MODEL_FILE, load_exported
from imageclf.lineage.snapshots import Snapshot, params_in, pipeline_files
from imageclf.network.description import MODEL_JSON, read_fingerprint
from imageclf.project.folder import CLASSIFIER, LOCK, PARAMS
from imageclf.project.git import git_if_any
from imageclf.project.lock import Out, recorded_outs
from imageclf.tracking.connection import TrackingError
from imageclf.tracking.journal import PATCH, Journal, JournalError, Record, journals
from imageclf.tracking.patch import split_patch
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.queries import KEPT, TrackedRun, Version, find_runs, find_version

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
        what: a version (``models:/NAME/3``, ``models:/NAME@champion``), the id of a run, a
            fingerprint or its first 8 digits or more, a model's folder, or an exported file.

    Raises:
        UserError: there is no such model, or MLflow is needed to find it and cannot be read.
    """
    if what.startswith("models:/"):
        version, run = find_version(what)
        return _with_files(Lineage(run.fingerprint, version, run))
    if Path(what).exists():
        fingerprint = fingerprint_of(Path(what))
        runs, unknown = _runs(fingerprint)
        return _with_files(Lineage(fingerprint, run=next(iter(runs), None), unknown=unknown))
    if not DIGITS.fullmatch(what):
        raise UserError(
            f"{what} is no file and names no model: give models:/NAME@champion, models:/NAME/3, a "
            "run id, a fingerprint (8 digits or more), a model's folder or an exported file"
        )
    return _with_files(_by_digits(what))


def fingerprint_of(path: Path) -> str:
    """The fingerprint in a model's folder or an exported file; a UserError if there is none."""
    if path.is_dir() and (path / MODEL_JSON).exists():
        return read_fingerprint(path)
    folder = path if path.is_dir() else path.parent
    exported = path if path.suffix == ".onnx" else folder / MODEL_FILE
    if not exported.is_file() or path.suffix not in {"", ".onnx", ".pt2"}:
        raise UserError(f"{path} holds no model: neither {MODEL_JSON} nor {MODEL_FILE} is there")
    return load_exported(exported).fingerprint


def _by_digits(digits: str) -> Lineage:
    """The model with this run id, or with a fingerprint that begins with it."""
    known = {journal.fingerprint for journal in journals()}
    known |= {fingerprint_of(CLASSIFIER)} if CLASSIFIER.exists() else set()
    known = {each for each in known if each.startswith(digits)}
    runs, unknown = _runs(digits)
    found = sorted(known | {run.fingerprint for run in runs})
    if not found:
        reason = f" ({unknown[0]})" if unknown else ""
        raise UserError(f"no run and no fingerprint begins with {digits}{reason}")
    if len(found) > 1:
        raise UserError(f"{digits} may be {' or '.join(found)}: give more digits")
    return Lineage(found[0], run=next(iter(runs), None), unknown=unknown)


def _runs(digits: str) -> tuple[list[TrackedRun], list[str]]:
    """The runs that MLflow finds, or why it cannot be read."""
    try:
        return find_runs(digits), []
    except TrackingError as error:
        return [], [str(error)]


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
