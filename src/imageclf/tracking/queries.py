"""Queries to MLflow: the run of a model, its versions, and the files that it was made from."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from imageclf.files import UserError
from imageclf.project.folder import CLASSIFIER, project_root
from imageclf.tracking.connection import (
    HASTY,
    PATIENT,
    TrackingError,
    database_file,
    opened_store,
    shown,
    tracking_uri,
)
from imageclf.tracking.messages import FINGERPRINT
from imageclf.tracking.metric_names import plain
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.tags import FORM, PRESENT_FORM, SNAPSHOT, whole

# At the root of a run's artifacts.
KEPT = ("params.yaml", "dvc.lock", "changes.patch")


@dataclass(frozen=True)
class Version:
    """A registered version of a model, with its aliases and the sha256 of its ONNX file."""

    name: str
    number: str
    aliases: list[str]
    sha256: str


@dataclass(frozen=True)
class RunSummary:
    """A run as MLflow shows it in a list.

    Attributes:
        status: FINISHED, RUNNING, FAILED or KILLED.
        started: milliseconds since 1970.
        params: as text by dotted path.
        metrics: the last value of each, by the names of reports/history.csv, those of the test
            split after ``test_``.
        tags: without MLflow's own and those of the provenance.
        snapshot: the state of the pipeline with which it agrees, if any.
        is_present: whether its names and tags have the present form.
    """

    name: str
    experiment: str
    status: str
    started: int
    fingerprint: str
    params: dict[str, str]
    metrics: dict[str, float]
    provenance: Provenance
    tags: dict[str, str]
    snapshot: str | None = field(default=None, kw_only=True)
    is_present: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class TrackedRun(RunSummary):
    """A run with the versions of its fingerprint, and its files of ``KEPT`` by name."""

    id: str
    versions: list[Version]
    files: dict[str, bytes]


def list_runs() -> list[RunSummary]:
    """Every run of a model, newest first; a UserError if MLflow cannot be read."""
    with opened_store(PATIENT) as store:
        names = {each.experiment_id: each.name for each in store.experiments()}
        return [
            RunSummary(**_shown(run, names[run.info.experiment_id]))
            for run in store.runs("tags.fingerprint LIKE '%'")
            if _is_ours(run.data.tags)
        ]


def find_by_name(name: str) -> tuple[Version | None, TrackedRun] | None:
    """The newest version of a registered model, or else the newest run of that name.

    None if there is neither; a UserError if MLflow cannot be read.
    """
    quoted = f'"{name}"' if "'" in name else f"'{name}'"
    with _store() as store:
        for model in store.client.search_registered_models(f"name = {quoted}"):
            newest = max((int(each.version) for each in model.latest_versions), default=None)
            return None if newest is None else find_version(f"models:/{name}/{newest}")
        for run in store.runs(f"attributes.run_name = {quoted}"):
            if _is_ours(run.data.tags):
                return None, _tracked(store, run)
    return None


def find_version(uri: str) -> tuple[Version, TrackedRun]:
    """A registered model and its run, named as ``models:/NAME/3`` or ``models:/NAME@champion``.

    Raises:
        UserError: there is no such version, or MLflow cannot be read.
    """
    place = uri.removeprefix("models:/")
    by_alias, by_number = place.rpartition("@"), place.rpartition("/")
    if not by_alias[0] and not by_number[0]:
        raise UserError(f"{uri} names no version: models:/NAME/3 or models:/NAME@champion does")
    with _store() as store:
        if by_alias[0]:
            found = store.client.get_model_version_by_alias(by_alias[0], by_alias[2])
        else:
            found = store.client.get_model_version(by_number[0], by_number[2])
        run = found.run_id and store.client.get_run(found.run_id)
        if not run or not _is_ours(run.data.tags):
            raise UserError(f"{uri} was not registered by this project: it has no fingerprint")
        return _version(found), _tracked(store, run)


def download_classifier(uri: str, folder: Path) -> Path:
    """Download the classifier of a registered model from its run; its folder, in ``folder``.

    Raises:
        UserError: there is no such version, its run has no classifier, or MLflow cannot be read.
    """
    run = find_version(uri)[1]
    with _store() as store:
        client = store.client
        if not client.list_artifacts(run.id, str(CLASSIFIER)):
            raise UserError(f"{uri}: its run holds no {CLASSIFIER}: register it again")
        folder.mkdir(parents=True, exist_ok=True)
        return Path(client.download_artifacts(run.id, str(CLASSIFIER), str(folder)))


def download_files(run_id: str, paths: Iterable[Path], folder: Path) -> dict[Path, Path]:
    """Download files of a run into a folder; where those are that the run has among its artifacts.

    Raises:
        TrackingError: MLflow cannot be read.
    """
    with _store() as store:
        client, found = store.client, {}
        for path in paths:
            listed = client.list_artifacts(run_id, str(path.parent))
            if str(path) in {each.path for each in listed}:
                found[path] = Path(client.download_artifacts(run_id, str(path), str(folder)))
        return found


def find_runs(digits: str) -> list[TrackedRun]:
    """Runs of this id or beginning of a fingerprint, newest first; raises as ``list_runs``."""
    with _store() as store:
        found = [*store.runs(f"attributes.run_id = '{digits}'")]
        found += store.runs(f"tags.fingerprint LIKE '{digits}%'")
        return [_tracked(store, run) for run in found if _is_ours(run.data.tags)]


def _is_ours(tags: Mapping[str, str]) -> bool:
    """Whether the tags are those of a model of this project."""
    return FINGERPRINT.fullmatch(tags.get("fingerprint", "")) is not None


@contextmanager
def _store() -> Iterator[Any]:
    """The tracking store; if there is none, it is not created."""
    uri = tracking_uri(project_root())
    if (file := database_file(uri)) and not file.exists():
        raise TrackingError(f"there is no tracking store at {shown(uri)}")
    with opened_store(HASTY) as store:
        yield store


def _tracked(store: Any, run: Any) -> TrackedRun:
    client, info, tags = store.client, run.info, run.data.tags
    alike = client.search_model_versions(f"tags.fingerprint = '{tags['fingerprint']}'")
    # Searches return no aliases.
    versions = [client.get_model_version(each.name, each.version) for each in alike]
    return TrackedRun(
        **_shown(run, client.get_experiment(info.experiment_id).name),
        id=info.run_id,
        versions=sorted(map(_version, versions), key=lambda each: (each.name, int(each.number))),
        files=_files(client, info.run_id),
    )


def _shown(run: Any, experiment: str) -> dict[str, Any]:
    """The values of a ``RunSummary``."""
    tags = whole(run.data.tags)
    own = {tag for tag in tags if tag.startswith("mlflow.") or Provenance.names(tag)}
    return {
        "name": run.info.run_name,
        "experiment": experiment,
        "status": run.info.status,
        "started": run.info.start_time,
        "fingerprint": tags["fingerprint"],
        "params": run.data.params,
        "metrics": {plain(name): value for name, value in run.data.metrics.items()},
        "provenance": Provenance.from_tags(tags),
        "tags": {tag: tags[tag] for tag in tags.keys() - own},
        "snapshot": tags.get(SNAPSHOT),
        "is_present": tags.get(FORM) == PRESENT_FORM,
    }


def _version(found: Any) -> Version:
    sha256 = found.tags.get("sha256", "")
    return Version(found.name, str(found.version), sorted(found.aliases), sha256)


def _files(client: Any, run_id: str) -> dict[str, bytes]:
    there = {each.path for each in client.list_artifacts(run_id)}
    with TemporaryDirectory() as folder:
        return {
            name: Path(client.download_artifacts(run_id, name, folder)).read_bytes()
            for name in KEPT
            if name in there
        }
