"""MLflow's registry: one version per exported file, its aliases, and the gate applied to it."""

from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imageclf.promotion import Candidate, Decision, Scored, decide
from imageclf.store import PATIENT, Store, opened_store, shown

if TYPE_CHECKING:
    from mlflow.entities import RunInfo

SERVED_WITH = ("mlflow", "numpy", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Model:
    """An ONNX file to register under a name, with two test images (uint8, 2 x H x W [x C])."""

    name: str
    path: Path
    example: NDArray[np.uint8]
    class_names: list[str]


@dataclass(frozen=True)
class Registration:
    """What is in MLflow now; ``store`` is its address, without credentials."""

    store: str
    run_name: str
    version: str
    decision: Decision
    aliases: list[str]


def register(run: "RunInfo", model: Model, candidate: Candidate) -> Registration:
    """Register the model of a run once, and ask the gate each time.

    A version keeps the tag of its first decision until it is promoted: what made it the champion
    then is not undone by what is the champion now.

    Raises:
        UserError: MLflow cannot be reached, refuses, or is not installed.
    """
    with opened_store(PATIENT) as store, store.lock():
        client, name = store.client, model.name
        version = _version(store, model, candidate)
        aliases = [] if version else ["challenger"]
        version = version or _log_model(store, run, model, candidate)
        holder = client.get_registered_model(name).aliases.get("champion")
        champion = holder and Scored.from_tags(client.get_model_version(name, holder).tags)
        decision = decide(candidate, champion)
        decided = "promotion" in client.get_model_version(name, version).tags
        promoted = decision.promoted and version != holder
        if promoted or not decided:
            client.set_model_version_tag(name, version, "promotion", str(decision))
        for alias in aliases + ["champion"] * promoted:
            client.set_registered_model_alias(name, alias, version)
        aliases = client.get_model_version(name, version).aliases
    return Registration(shown(store.uri), run.run_name, version, decision, sorted(aliases))


def download_model(uri: str) -> Path:
    """The folder with ``model.onnx`` of a registered model, such as ``models:/digits@champion``.

    Raises:
        UserError: there is no such model, or MLflow cannot be reached.
    """
    with opened_store(PATIENT) as store:
        return Path(store.fluent().artifacts.download_artifacts(artifact_uri=uri))


def _version(store: Store, model: Model, candidate: Candidate) -> str | None:
    tags = {"fingerprint": candidate.fingerprint, "sha256": candidate.sha256}
    wanted = " AND ".join(f"tags.{tag} = '{value}'" for tag, value in tags.items())
    for version in store.client.search_model_versions(wanted):
        if version.name == model.name:
            return str(version.version)
    return None


def _log_model(store: Store, run: "RunInfo", model: Model, candidate: Candidate) -> str:
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = TensorSpec(np.dtype(np.uint8), (-1, *model.example.shape[1:]), "images")
    classes = TensorSpec(np.dtype(np.float32), (-1, len(model.class_names)), "probabilities")
    mlflow = store.fluent()
    mlflow.set_experiment(experiment_id=run.experiment_id)
    with redirect_stderr(StringIO()):  # where MLflow announces each new version
        logged = mlflow.onnx.log_model(
            onnx.load(model.path),
            name="model",
            run_id=run.run_id,
            signature=ModelSignature(Schema([images]), Schema([classes])),
            input_example=model.example,
            pip_requirements=[f"{name}=={installed_version(name)}" for name in SERVED_WITH],
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
            metadata={"class_names": model.class_names, "fingerprint": candidate.fingerprint},
        )
        # Its tags come with the version, so that it is found again from the start.
        version = mlflow.register_model(logged.model_uri, model.name, tags=candidate.tags())
    return str(version.version)
