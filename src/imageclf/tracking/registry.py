"""MLflow's registry: one version per exported file, the aliases, and the gate."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imageclf.files import UserError
from imageclf.project.folder import EVALUATION, PREDICTIONS
from imageclf.tracking.connection import PATIENT, Store, opened_store, shown
from imageclf.tracking.gate import (
    EVIDENCE,
    Candidate,
    Champion,
    Decision,
    Identity,
    decide,
    read_candidate,
    read_correct,
)
from imageclf.tracking.wording import model_note, version_note

if TYPE_CHECKING:
    from mlflow.entities import RunInfo

REPORT = EVALUATION / "index.html"
SERVED_WITH = ("mlflow", "numpy", "onnx", "onnxruntime")
CHALLENGER, CHAMPION = "challenger", "champion"  # aliases: the newest version, and the best
DECISION, REPLACED = "promotion", "replaced"  # tags: the gate's decision, the previous champion
PROMOTED, TAKEN_BACK = "promoted", "taken back"  # what the tag of a decision begins with
# Errors of concurrent changes: MLflow's for versions, after three tries of its own, and those of
# PostgreSQL and SQLite for the rows of aliases.
CLASHES = ("Model Version creation error", "UniqueViolation", "UNIQUE constraint failed")
TRIES = 5
UNKNOWN = Decision(
    False, ("its run does not hold what the gate reads: register it from its training again",)
)


@dataclass(frozen=True)
class Model:
    """An ONNX file to register under a name.

    Attributes:
        example: two test images in the shape that it takes.
        data: the name of its data set.
        note: the description of its run.
    """

    name: str
    path: Path
    example: NDArray[np.uint8]
    class_names: list[str]
    data: str = ""
    note: str = ""


@dataclass(frozen=True)
class Registration:
    """The result in MLflow.

    Attributes:
        store: its address, without credentials.
        remark: why the model could not be compared with the champion, if so.
    """

    store: str
    run_name: str
    version: str
    decision: Decision
    aliases: list[str]
    remark: str = ""


@dataclass(frozen=True)
class Promotion:
    """The gate's decision about a version, and the version that is the champion now, if any."""

    version: str
    decision: Decision
    champion: str | None


def register(run: "RunInfo", model: Model, candidate: Candidate) -> Registration:
    """Register the model of a run once, and ask the gate each time.

    The tag of the first decision stays until the version is promoted. The gate is not asked about
    a version that was taken back.

    Raises:
        UserError: MLflow cannot be reached, refuses, or is not installed.
    """
    with opened_store(PATIENT) as store, store.lock():
        versions = _Versions(store, model.name)
        found = versions.find(candidate.identity)
        version = found or _log_model(store, run, model, candidate)
        if version == versions.newest():
            versions.set_alias(CHALLENGER, version)
        before = versions.tags(version).get(DECISION, "")
        if before.startswith(TAKEN_BACK):
            again = f"`imageclf promote {model.name}/{version}` asks the gate again"
            decision = Decision(False, (f"it was taken back: {again}",))
        else:
            decision = versions.ask_gate(version, candidate)
            if not before:
                versions.set_tag(version, DECISION, str(decision))
        versions.describe(version, run, model, before or str(decision))
        aliases = sorted(store.client.get_model_version(model.name, version).aliases)
    return Registration(shown(store.uri), run.run_name, version, decision, aliases)


def promote(model: str) -> Promotion:
    """Ask the gate about a registered version, such as ``digits/3``; ``digits`` is the newest.

    The gate reads the artifacts of the version's run. A refusal is kept as a tag of the version.

    Raises:
        UserError: there is no such version, or as ``register`` does.
    """
    name, version = _parse(model)
    with opened_store(PATIENT) as store, store.lock():
        versions = _Versions(store, name)
        version = version or versions.newest()
        candidate = versions.candidate(version)
        decision = versions.ask_gate(version, candidate) if candidate else UNKNOWN
        if not decision.promoted:
            versions.set_tag(version, DECISION, str(decision))
        return Promotion(version, decision, versions.champion())


def take_back(model: str) -> tuple[str, str]:
    """Make the previous champion the champion again; returns both, the later version first.

    Raises:
        UserError: there is none, or as ``register`` does.
    """
    name, version = _parse(model)
    if version:
        raise UserError(f"{model}: say only the name, {name}: its champion goes back by one")
    with opened_store(PATIENT) as store, store.lock():
        versions = _Versions(store, name)
        holder = versions.champion()
        if holder is None:
            raise UserError(f"{name} has no champion: `imageclf promote {name}` asks for one")
        earlier = versions.tags(holder).get(REPLACED)
        if earlier is None:
            raise UserError(f"{name} version {holder} replaced no champion: there is none before")
        versions.set_tag(holder, DECISION, f"{TAKEN_BACK}: version {earlier} is the champion again")
        versions.set_alias(CHAMPION, earlier)
        return holder, earlier


def opponent(name: str, fingerprint: str) -> str | None:
    """The champion's version, or that of the one before it if the champion has the fingerprint.

    Returns None if there is none; raises as ``register`` does.
    """
    with opened_store(PATIENT) as store:
        versions = _Versions(store, name)
        holder = versions.champion()
        if holder is None:
            return None
        tags = versions.tags(holder)
        return tags.get(REPLACED) if tags.get("fingerprint") == fingerprint else holder


@contextmanager
def downloaded_model(uri: str) -> Iterator[tuple[Path, str]]:
    """A temporary folder with ``model.onnx`` of a model, such as ``models:/digits@champion``.

    With it comes the version that it is, as ``digits/3``.

    Raises:
        UserError: there is no such model, or MLflow cannot be reached.
    """
    name, _, alias = uri.removeprefix("models:/").partition("@")
    with TemporaryDirectory() as folder:
        with opened_store(PATIENT) as store:
            if alias:
                name += f"/{store.client.get_model_version_by_alias(name, alias).version}"
            # The version itself: meanwhile the alias may be given to another one.
            found = store.fluent().artifacts.download_artifacts(
                artifact_uri=f"models:/{name}", dst_path=folder
            )
        yield Path(found), name


def _parse(model: str) -> tuple[str, str]:
    """Name and version of NAME/3 or models:/NAME/3; of NAME alone the version is empty."""
    name, slash, version = model.removeprefix("models:/").partition("/")
    if slash and not version.isdecimal():
        raise UserError(f"{model}: name a version like {name}/3, or {name} for the newest one")
    return name, version


class _Versions:
    """The versions of one registered model, their tags and its aliases."""

    def __init__(self, store: Store, name: str) -> None:
        self._client, self._name = store.client, name

    def find(self, identity: Identity) -> str | None:
        wanted = " AND ".join(f"tags.{tag} = '{value}'" for tag, value in identity.tags().items())
        found = self._client.search_model_versions(wanted)
        return next((str(each.version) for each in found if each.name == self._name), None)

    def newest(self) -> str:
        latest = self._client.get_registered_model(self._name).latest_versions
        if not latest:
            raise UserError(f"{self._name} has no version: `dvc repro` registers one")
        return str(max(int(version.version) for version in latest))

    def champion(self) -> str | None:
        version = self._client.get_registered_model(self._name).aliases.get(CHAMPION)
        return None if version is None else str(version)

    def tags(self, version: str) -> dict[str, str]:
        tags: dict[str, str] = self._client.get_model_version(self._name, version).tags
        return tags

    def set_tag(self, version: str, name: str, value: str) -> None:
        self._client.set_model_version_tag(self._name, version, name, value)

    def set_alias(self, alias: str, version: str) -> None:
        retry_on_clash(lambda: self._client.set_registered_model_alias(self._name, alias, version))

    def describe(self, version: str, run: "RunInfo", model: Model, decision: str) -> None:
        """Describe the model and a version, where nobody did."""
        client, name = self._client, self._name
        if not client.get_registered_model(name).description:
            client.update_registered_model(name, model_note(model.data, model.class_names))
        if not client.get_model_version(name, version).description:
            report = f"#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/{REPORT}"
            note = version_note(model.note, model.class_names, decision, report)
            client.update_model_version(name, version, note)

    def ask_gate(self, version: str, candidate: Candidate) -> Decision:
        """Compare a version with the champion, and make it the champion if it passes.

        A server knows no compare-and-set of an alias, so another machine may promote another
        version after the same champion. Each sets its alias before its tag and reads the tags
        again after that, so at least one of the two sees the other, and compares both.
        """
        earlier = self._promoted()
        holder = self.champion()
        decision = decide(candidate, self._as_champion(holder) if holder else None)
        if not decision.promoted or version == holder:
            return decision
        if holder:
            self.set_tag(version, REPLACED, holder)
        self.set_alias(CHAMPION, version)
        self.set_tag(version, DECISION, str(decision))
        rivals = self._promoted() - earlier - {version}
        return self._settle({version, *rivals}).get(version, decision) if rivals else decision

    def _promoted(self) -> set[str]:
        """The versions that the gate promoted and nobody took back."""
        found = self._client.search_model_versions(f"tags.{DECISION} LIKE '{PROMOTED}%'")
        return {str(each.version) for each in found if each.name == self._name}

    def _settle(self, rivals: set[str]) -> dict[str, Decision]:
        """Make the best of several versions the champion; returns the refusals of the others.

        In the order of their numbers each has to beat the best one so far, so that every machine
        comes to the same result.
        """
        best, *others = sorted(rivals, key=int)
        refused = {}
        for version in others:
            candidate = self.candidate(version)
            decision = decide(candidate, self._as_champion(best)) if candidate else UNKNOWN
            loser = best if decision.promoted else version
            best = version if decision.promoted else best
            rival = f"version {best} was promoted at the same time"
            reasons = () if decision.promoted else decision.reasons
            refused[loser] = Decision(False, (rival, *reasons))
        for version, refusal in refused.items():
            self.set_tag(version, DECISION, str(refusal))
        self.set_alias(CHAMPION, best)
        return refused

    def candidate(self, version: str) -> Candidate | None:
        """A version with the figures in its run; None if some are missing."""
        with TemporaryDirectory() as folder:
            held = self._download(version, EVIDENCE, Path(folder))
            identity = Identity.from_tags(self.tags(version))
            return read_candidate(Path(folder), identity) if held else None

    def _as_champion(self, version: str) -> Champion:
        with TemporaryDirectory() as folder:
            held = self._download(version, [PREDICTIONS], Path(folder))
            correct = read_correct(Path(folder) / PREDICTIONS) if held else None
        return Champion(Identity.from_tags(self.tags(version)), correct)

    def _download(self, version: str, paths: Iterable[Path], folder: Path) -> bool:
        """Download artifacts of a version's run; returns whether it has them all."""
        from mlflow.exceptions import MlflowException

        run_id = self._client.get_model_version(self._name, version).run_id
        try:
            for path in paths:
                found = self._client.list_artifacts(run_id, str(path.parent)) if run_id else []
                if str(path) not in {artifact.path for artifact in found}:
                    return False
                self._client.download_artifacts(run_id, str(path), str(folder / path.parent))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # as for a deleted run
                raise
            return False
        return True


def _log_model(store: Store, run: "RunInfo", model: Model, candidate: Candidate) -> str:
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = TensorSpec(np.dtype(np.uint8), (-1, *model.example.shape[1:]), "images")
    classes = TensorSpec(np.dtype(np.float32), (-1, len(model.class_names)), "probabilities")
    novelty = TensorSpec(np.dtype(np.float32), (-1,), "novelty")
    tags = candidate.identity.tags() | {"accuracy": repr(candidate.accuracy)}
    mlflow = store.fluent()
    mlflow.set_experiment(experiment_id=run.experiment_id)
    with redirect_stderr(StringIO()):  # MLflow announces each new version there
        logged = mlflow.onnx.log_model(
            onnx.load(model.path),
            name="model",
            run_id=run.run_id,
            signature=ModelSignature(Schema([images]), Schema([classes, novelty])),
            input_example=model.example,
            pip_requirements=[f"{name}=={installed_version(name)}" for name in SERVED_WITH],
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
            metadata={"class_names": model.class_names, "fingerprint": tags["fingerprint"]},
        )
        # The tags are set with it, so that ``find`` finds it at any time.
        made = retry_on_clash(
            lambda: mlflow.register_model(logged.model_uri, model.name, tags=tags)
        )
        return str(made.version)


def retry_on_clash(change: Callable[[], Any]) -> Any:
    """The result of a change, which is retried after a concurrent change by another process.

    Raises:
        MlflowException: it fails for another reason, or ``TRIES`` times.
    """
    from mlflow.exceptions import MlflowException

    for _ in range(TRIES):
        try:
            return change()
        except MlflowException as error:
            clash = error
            if not any(sign in str(error) for sign in CLASHES):
                raise
    raise clash
