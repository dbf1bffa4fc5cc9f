"""Publication: the files of a finished pipeline are written to MLflow."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imageclf.evaluation.comparison import Contender, compare, read_answers
from imageclf.evaluation.comparison_page import render_comparison
from imageclf.files import UserError, read_json, sha256_file
from imageclf.lineage.contenders import rival
from imageclf.lineage.snapshots import MODEL, Snapshot, checked_out, pipeline_files
from imageclf.network.description import read_description
from imageclf.params import Params, flatten, load_params, tracked_values
from imageclf.project.folder import (
    AUDIT,
    AUDIT_PAGE,
    COMPARISON,
    EVALUATION,
    HISTORY,
    LOCK,
    METRICS,
    ONNX,
    PARAMS,
    PARITY,
    PREDICTIONS,
    PREPARED,
    REPORTS,
)
from imageclf.project.lock import md5_of, recorded_outs
from imageclf.recipes import BASE, RECIPES, find_recipe
from imageclf.tracking.gate import Candidate, Identity, read_candidate
from imageclf.tracking.journal import Journal, Record, keep_registration, trained_here
from imageclf.tracking.messages import (
    Dataset,
    File,
    Item,
    Metrics,
    Note,
    Patch,
    describe_run,
    now_ms,
)
from imageclf.tracking.patch import record_source
from imageclf.tracking.registry import Model, Registration
from imageclf.tracking.registry import register as register_model
from imageclf.tracking.runs import attach, end_abandoned, synchronise, tag_snapshot
from imageclf.tracking.wording import run_note
from imageclf.training.history import read_history

if TYPE_CHECKING:
    from mlflow.entities import RunInfo

TEST_IMAGES = PREPARED / "test.images.npy"
SPLITS = ("train", "val", "test")
MEASURED = {"train", "evaluate", "export"}  # stages with small outs, a model and its figures


def register(params: Params) -> tuple[Registration, Record]:
    """Publish the current folder, after its registration is recorded in the journal.

    Raises:
        UserError: a file is missing, or MLflow cannot be written.
    """
    outs, files = Outs(Path()), pipeline_files(Path())
    description = describe_run(params, outs.fingerprint, outs.digests, weights=outs.weights)
    if outs.journal.record is None:
        description = replace(description, origin=record_source(outs.journal.patch))
    restored = not trained_here(outs.fingerprint)
    record = outs.journal.register(description, files, restored, now_ms())
    digest = Snapshot("", files).digest if LOCK in files else None
    done = outs.publish(record, tracked_values(params), digest)
    keep_registration(outs.fingerprint, params.register_.name, done.version, asdict(done.decision))
    end_abandoned()
    return done, record


def publish(snapshot: Snapshot) -> Registration:
    """Publish the outs of a snapshot, restored by DVC, and complete the journal from it.

    Raises:
        UserError: outs are not available, or MLflow cannot be written.
    """
    with checked_out(snapshot) as folder:
        outs = Outs(folder)
        if outs.journal.is_training():
            raise UserError("it is being trained now")
        record = snapshot.record or _keep(snapshot, outs, load_params(folder / PARAMS))
        return outs.publish(record, snapshot.params, snapshot.digest)


def _keep(snapshot: Snapshot, outs: "Outs", params: Params) -> Record:
    description = describe_run(
        params, outs.fingerprint, outs.digests, snapshot.experiment, outs.weights
    )
    description = replace(description, origin=snapshot.origin, started=snapshot.time)
    known = outs.journal.record
    restored = known.restored if known else True
    return outs.journal.register(description, snapshot.files, restored, snapshot.time)


def _check_md5s(folder: Path) -> None:
    """Raise a UserError if an out of train, evaluate or export is not as dvc.lock records it."""
    lock = folder / LOCK
    outs = recorded_outs(lock.read_text("utf-8")) if lock.exists() else []
    for out in outs:
        if out.stage in MEASURED and md5_of(folder / out.path) != out.md5:
            raise UserError(
                f"{out.path} is not what {LOCK} records: `imageclf verify` names the file, and "
                "says how to get it again"
            )


class Outs:
    """The files that the pipeline wrote, below a folder.

    Raises:
        UserError: one is missing, or is not the file that dvc.lock records.
    """

    def __init__(self, folder: Path) -> None:
        for path in (HISTORY, ONNX, TEST_IMAGES, PREDICTIONS, AUDIT_PAGE):
            if not (folder / path).exists():
                raise UserError(f"{path} is missing: run `dvc repro` to make it")
        _check_md5s(folder)
        self._folder = folder
        self._model = read_description(folder / MODEL)
        self.fingerprint = self._model.fingerprint
        self.weights = self._model.weights
        self.digests: dict[str, str] = read_json(folder / PREPARED / "digests.json")
        self.journal = Journal(self.fingerprint)

    def publish(
        self, record: Record, params: Mapping[str, Any], digest: str | None
    ) -> Registration:
        """Make MLflow agree with these files and with the journal.

        Args:
            record: of the journal.
            params: by dotted path, at least ``register.name`` and ``data.name``.
            digest: of the snapshot that the files belong to, if any.

        Raises:
            UserError: a file is missing, or MLflow cannot be written.
        """
        import numpy as np

        from imageclf.data.prepared import load_split
        from imageclf.data.shapes import as_stored

        model = Model(
            name=params["register.name"],
            path=self._folder / ONNX,
            example=as_stored(np.array(load_split(self._folder / PREPARED, "test").images[:2])),
            class_names=self._model.class_names,
            data=params["data.name"],
        )
        identity = Identity(self.fingerprint, sha256_file(model.path), self.digests["test"])
        candidate = read_candidate(self._folder, identity)
        note = self._note(params, candidate)
        datasets = self._datasets(params["data.name"])
        items: list[Item] = [Note(note), *self._metrics(record), *datasets, *self._files(record)]
        description = record.description.named(candidate.accuracy)
        run = synchronise(description, items, record.restored, self._ended(record))
        registration = register_model(run, replace(model, note=note), candidate)
        if digest:
            tag_snapshot(run, digest)
        try:
            self._attach_comparison(run, params, f"{model.name} {registration.version}")
        except UserError as error:  # the model itself is registered
            registration = replace(registration, remark=str(error))
        return registration

    def _note(self, params: Mapping[str, Any], candidate: Candidate) -> str:
        """The description of the run; without the recipe to compare with, of no parameters."""
        base = flatten(find_recipe(BASE).values) if (RECIPES / f"{BASE}.yaml").exists() else {}
        images = read_json(self._folder / AUDIT)["images"]
        classes, correct = len(self._model.class_names), candidate.correct
        return run_note(params, base, images, classes, correct, candidate.majority_accuracy)

    def _attach_comparison(self, run: "RunInfo", params: Mapping[str, Any], title: str) -> None:
        """Put a page beside the run that compares the model with the champion, if that is another.

        No stage may write it: it depends on what else is registered.
        """
        mine = Contender(
            title=title,
            fingerprint=self.fingerprint,
            params=params,
            figures=read_json(self._folder / METRICS),
            test_digest=self.digests["test"],
            answers=read_answers(self._folder / PREDICTIONS),
        )
        if (other := rival(mine)) is not None:
            page = render_comparison(compare(mine, other), self._folder / PREPARED)
            attach(run, COMPARISON, page)

    def _ended(self, record: Record) -> int:
        """When the training ended here, or else when its model was first registered here."""
        end = self.journal.end()
        return end.time if end and end.status == "FINISHED" else record.registered or now_ms()

    def _metrics(self, record: Record) -> Iterator[Metrics]:
        """The metrics in the files, with times and speeds from the journal."""
        registered = record.registered or now_ms()
        said = {each.step: each for each in self.journal.messages() if isinstance(each, Metrics)}
        for epoch, row in enumerate(read_history(self._folder / HISTORY), start=1):
            live = said.get(epoch, Metrics(epoch, {}, registered))
            values = {name: value for name, value in row.items() if name != "epoch"}
            yield Metrics(epoch, live.values | values, live.time)
        figures = read_json(self._folder / METRICS)
        test = {f"test_{name}": float(value) for name, value in figures.items()}
        yield Metrics(0, test, registered)

    def _datasets(self, name: str) -> Iterator[Dataset]:
        counts = read_json(self._folder / AUDIT)["images"]
        for split in SPLITS:
            source = f"{PREPARED}/{split}.images.npy"
            yield Dataset(split, name, self.digests[split], source, counts[split])

    def _files(self, record: Record) -> Iterator[File]:
        reports = self._folder / REPORTS
        for name in ("data.json", "data.html", "history.csv", "metrics.json"):
            yield File(reports / name, "reports")
        yield File(self._folder / EVALUATION, str(EVALUATION))
        yield File(self._folder / PARITY, str(PARITY.parent))
        yield File(self._folder / MODEL, MODEL)
        for name in (PARAMS, LOCK):
            if (path := self.journal.folder / name).exists():
                yield File(path)
        commit = record.description.origin.commit
        if commit and self.journal.patch.exists():
            yield Patch(self.journal.patch, commit=commit)
