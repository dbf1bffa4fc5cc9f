"""MLflow's runs: one writer of typed items, one run per fingerprint.

``synchronise`` brings a run up to date from the files of a finished training; ``report`` writes the
messages of a training that runs.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from imageclf.files import UserError
from imageclf.project.folder import EVALUATION
from imageclf.tracking.connection import HASTY, PATIENT, Store, opened_store
from imageclf.tracking.journal import journals
from imageclf.tracking.messages import (
    Dataset,
    End,
    File,
    FirstBatch,
    Item,
    Message,
    Metrics,
    Note,
    Patch,
    RunDescription,
)
from imageclf.tracking.metric_names import grouped
from imageclf.tracking.places import artifact_location
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.tags import (
    FORM,
    GIVEN,
    NAME,
    NOTE,
    PRESENT_FORM,
    SNAPSHOT,
    given,
    shortened,
    whole,
)

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run, RunInfo

DIGEST = 8  # characters of a data set's digest, its version in MLflow
LONGEST_PARAM = 6000  # characters of a parameter; MLflow cuts a longer one
MOST_POINTS = 1000  # in a request, MLflow's limit
SOURCE = {"mlflow.source.name": "stages/train.py", "mlflow.source.type": "LOCAL"}


def synchronise(
    description: RunDescription, items: Sequence[Item], restored: bool, ended: int
) -> "RunInfo":
    """Make the run of a model agree with the files. Idempotent.

    Args:
        description: of the run; an origin that the training reported stays.
        items: everything in the files about the run.
        restored: whether the model came from a cache.
        ended: end of the training in milliseconds since 1970, used if MLflow has none.

    Raises:
        UserError: MLflow cannot be reached, refuses, or is not installed.
    """
    with opened_store(PATIENT) as store:
        points = _points(item for item in items if isinstance(item, Metrics))
        run = _Runs(store).run(description, points, training=False)
        run.write(*items)
        run.settle(restored, ended)
        info: RunInfo = store.client.get_run(run.info.run_id).info
        return info


def tag_snapshot(run: "RunInfo", digest: str) -> None:
    """Mark that the run agrees with a snapshot's files; raises as ``synchronise`` does."""
    with opened_store(PATIENT) as store:
        store.client.set_tag(run.run_id, SNAPSHOT, digest)


def attach(run: "RunInfo", path: Path, text: str) -> None:
    """Put a text among the artifacts of a run, under this path; raises as ``synchronise`` does."""
    with opened_store(PATIENT) as store:
        store.client.log_text(run.run_id, text, str(path))


def report(description: RunDescription, items: Iterable[Message]) -> None:
    """Write each message of a training to its run; raises as ``synchronise`` does."""
    with opened_store(HASTY) as store:
        run = _Runs(store).run(description, {}, training=True)
        for item in items:
            run.write(item)


def end_abandoned() -> list[str]:
    """End the runs that are RUNNING in MLflow although their training here has ended.

    Returns their names; raises as ``synchronise`` does.
    """
    ended, known = [], {journal.fingerprint: journal for journal in journals()}
    with opened_store(PATIENT) as store:
        for run in store.runs("attributes.status = 'RUNNING'"):
            journal = known.get(run.data.tags.get("fingerprint", ""))
            if journal and (end := journal.end()):
                store.client.set_terminated(run.info.run_id, end.status, end.time)
                ended.append(run.info.run_name)
    return ended


# Values by name and step.
Points = dict[tuple[str, int], float]


def _points(metrics: Iterable[Metrics]) -> Points:
    return {
        (grouped(name), item.step): value for item in metrics for name, value in item.values.items()
    }


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow keeps them."""
    return {name: str(value)[:LONGEST_PARAM] for name, value in params.items()}


class _RunWriter:
    """The only writer of a run. It adds what is missing and never writes a point twice."""

    def __init__(self, client: Any, run: "Run") -> None:
        from mlflow.entities import Metric

        self._client = client
        self.info, self._data, self._tags = run.info, run.data, whole(run.data.tags)
        self._commit = Provenance.from_tags(self._tags).commit
        self.points: dict[tuple[str, int], Metric] = {
            (grouped(key), point.step): Metric(
                grouped(key), point.value, point.timestamp, point.step
            )
            for key in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, key)
        }

    def contradicts(self, params: Mapping[str, Any], points: Points) -> bool:
        """Whether MLflow has another value of a parameter or of a point, or an earlier form."""
        if self._tags.get(FORM) != PRESENT_FORM:
            return True
        known, wanted = self._data.params, _texts(params)
        return any(known[name] != wanted[name] for name in known.keys() & wanted.keys()) or any(
            not math.isclose(self.points[place].value, points[place])
            for place in self.points.keys() & points.keys()
        )

    def describe(self, description: RunDescription, training: bool) -> None:
        """Add parameters and tags; only a training replaces tags of the origin."""
        from mlflow.entities import Param, RunTag

        known = {name: tag for name, tag in self._tags.items() if Provenance.names(name)}
        told = description.origin.tags()
        origin = known | told if training else told | known
        commit = Provenance.from_tags(origin).commit
        tags = shortened(description.tags | origin) | SOURCE
        tags |= {"mlflow.source.git.commit": commit} if commit else {}
        tags |= given(self._tags, NAME, description.name)
        params = _texts(description.params).items()
        self._client.log_batch(
            self.info.run_id,
            params=[Param(k, text) for k, text in params if k not in self._data.params],
            tags=[RunTag(name, value) for name, value in tags.items()],
            synchronous=True,
        )
        if training:
            self._client.update_run(self.info.run_id, status="RUNNING")

    def write(self, *items: Item) -> None:
        """Write items, metrics first and in as few requests as possible."""
        from mlflow.entities import Metric

        run_id = self.info.run_id
        self.write_points(
            Metric(grouped(name), value, item.time, item.step)
            for item in items
            if isinstance(item, Metrics)
            # MLflow's comparison opens on the first: the learning rate says nothing there.
            for name, value in sorted(item.values.items(), reverse=True)
        )
        for item in items:
            match item:
                case Dataset():
                    self._write_dataset(item)
                case Patch(commit=commit) if self._commit not in {None, commit}:
                    pass  # the run is of another commit, and keeps its patch
                case File(path, folder) if path.is_dir():
                    self._client.log_artifacts(run_id, str(path), folder)
                case File(path, folder):
                    self._client.log_artifact(run_id, str(path), folder)
                case Note(text):
                    for name, value in given(self._tags, NOTE, text).items():
                        self._client.set_tag(run_id, name, value)
                case FirstBatch(file):
                    self._draw_first_batch(file)
                case End(status, time):
                    self._client.set_terminated(run_id, status, time)

    def write_points(self, points: Iterable["Metric"]) -> None:
        """Write the points that the run does not have yet."""
        missing = [point for point in points if (point.key, point.step) not in self.points]
        for start in range(0, len(missing), MOST_POINTS):
            chunk = missing[start : start + MOST_POINTS]
            self._client.log_batch(self.info.run_id, metrics=chunk, synchronous=True)
            self.points |= {(point.key, point.step): point for point in chunk}

    def settle(self, restored: bool, ended: int) -> None:
        """End the run, and tag whether its model came from a cache."""
        tag = "restored_from_cache"
        if self.info.status != "FINISHED":
            self.write(End("FINISHED", ended))
        if restored:
            self._client.set_tag(self.info.run_id, tag, "true")
        elif tag in self._data.tags:
            self._client.delete_tag(self.info.run_id, tag)

    def _draw_first_batch(self, file: str) -> None:
        """Log the figure where the stage evaluate puts it after the training."""
        import numpy as np

        from imageclf.drawing.plots import pairs, save_figure

        with np.load(file) as arrays, TemporaryDirectory() as folder:
            picture = Path(folder) / "first_batch.png"
            save_figure(pairs(**arrays), picture)
            self._client.log_artifact(self.info.run_id, str(picture), str(EVALUATION))

    def _write_dataset(self, item: Dataset) -> None:
        """Log a split as an input of the run; MLflow stores equal ones once."""
        from mlflow.entities import Dataset as Entity
        from mlflow.entities import DatasetInput, InputTag
        from mlflow.exceptions import MlflowException

        source, profile = json.dumps({"uri": item.source}), json.dumps({"images": item.images})
        context = InputTag("mlflow.data.context", item.context)
        entity = Entity(item.name, item.digest[:DIGEST], "local", source, profile=profile)
        try:
            self._client.log_inputs(self.info.run_id, [DatasetInput(entity, [context])])
        except MlflowException as error:  # a training on the same data logged it first
            if error.error_code != "BAD_REQUEST":
                raise
            self._client.log_inputs(self.info.run_id, [DatasetInput(entity, [context])])


class _Runs:
    """The runs of a store."""

    def __init__(self, store: Store) -> None:
        self._store, self._client = store, store.client

    def run(self, description: RunDescription, points: Points, training: bool) -> _RunWriter:
        """Find the run of a fingerprint, or make it; replace it if it contradicts the files.

        Parameters and points in MLflow cannot be changed. So if a parameter outside of the
        fingerprint changed, the model was trained again on other hardware, or the run is of an
        earlier form, a new run gets everything of the old one that the files do not have.
        """
        with self._store.lock():
            experiment_id = self._experiment_id(description.experiment)
            wanted = f"tags.fingerprint = '{description.fingerprint}'"
            found = self._client.search_runs([experiment_id], wanted, max_results=1)
            if found:
                run = _RunWriter(self._client, found[0])
                if run.contradicts(description.params, points):
                    run = self._replace(found[0], run, points)
            else:
                name = description.name
                tags = {"fingerprint": description.fingerprint, FORM: PRESENT_FORM}
                tags |= given({}, NAME, name)
                new = self._client.create_run(experiment_id, description.started, tags, name)
                run = _RunWriter(self._client, new)
            run.describe(description, training)
        return run

    def _experiment_id(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            location = artifact_location(self._store.root) if self._store.is_database else None
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException as error:  # another training made it first
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(name)
        if found.lifecycle_stage != "active":
            raise UserError(
                f"the experiment {name} was deleted in MLflow: restore it there, or change "
                "register.experiment in params.yaml"
            )
        return str(found.experiment_id)

    def _replace(self, old: Any, writer: _RunWriter, points: Points) -> _RunWriter:
        info = old.info
        self._client.delete_run(info.run_id)
        tags = whole(old.data.tags) | {FORM: PRESENT_FORM}
        tags = {name: tag for name, tag in tags.items() if name.rpartition(".")[2] != "snapshot"}
        if info.run_name.endswith(tags["fingerprint"][:8]):  # given in the earlier form
            tags |= {f"{GIVEN}{NAME}": info.run_name}
        new = self._client.create_run(info.experiment_id, info.start_time, shortened(tags))
        run = _RunWriter(self._client, new)
        run.write_points(point for place, point in writer.points.items() if place not in points)
        self._client.log_outputs(run.info.run_id, old.outputs.model_outputs)
        if info.end_time:
            run.write(End(info.status, info.end_time))
        return _RunWriter(self._client, self._client.get_run(new.info.run_id))
