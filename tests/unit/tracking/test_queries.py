from pathlib import Path

import pytest

from helpers.descriptions import FINGERPRINT, described
from helpers.tracked import Registry
from imageclf.files import UserError, sha256_file, write_text
from imageclf.tracking.connection import TrackingError
from imageclf.tracking.messages import File
from imageclf.tracking.queries import download_classifier, find_runs, find_version


@pytest.fixture
def files(project: Path, onnx_file: Path) -> Registry:
    """A project with one registered model, the text of whose dvc.lock was kept."""
    files = Registry(project, onnx_file)
    files.register()
    write_text(Path("dvc.lock"), "schema: '2.0'\n")
    files.synchronise(items=[File(Path("dvc.lock"))])
    return files


@pytest.mark.parametrize("uri", ["models:/digits/1", "models:/digits@champion"])
def test_a_version_leads_to_its_run(files: Registry, uri: str) -> None:
    version, run = find_version(uri)
    assert (version.name, version.number) == ("digits", "1")
    assert version.aliases == ["challenger", "champion"]
    assert version.sha256 == sha256_file(files.onnx)
    assert run.id == files.runs()[0].info.run_id
    assert run.versions == [version]
    assert run.fingerprint == FINGERPRINT
    assert run.metrics["test_accuracy"] == 0.9
    assert run.params["model.name"] == "mlp"
    assert run.files == {"dvc.lock": b"schema: '2.0'\n"}
    assert (run.experiment, run.status, run.started) == (
        described().experiment,
        "FINISHED",
        files.runs()[0].info.start_time,
    )


def test_a_run_is_found_by_its_id_and_by_its_fingerprint(files: Registry) -> None:
    (run,) = find_runs(FINGERPRINT)
    assert find_runs(FINGERPRINT[:8]) == find_runs(run.id) == [run]
    assert find_runs("0" * 32) == []


def test_the_weights_of_a_version_come_from_its_run(files: Registry, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its run holds no models/classifier: register it again"):
        download_classifier("models:/digits@champion", tmp_path / "got")
    write_text(Path("models/classifier/model.safetensors"), "weights")
    files.synchronise(items=[File(Path("models/classifier"), "models/classifier")])
    folder = download_classifier("models:/digits@champion", tmp_path / "got")
    assert (folder / "model.safetensors").read_text() == "weights"


def test_a_version_outlives_the_run_it_came_from(files: Registry) -> None:
    (run,) = files.runs()
    files.client.delete_run(run.info.run_id)
    assert find_runs(FINGERPRINT) == []
    assert find_version("models:/digits/1")[1].id == run.info.run_id


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("models:/digits", "names no version: models:/NAME/3 or models:/NAME@champion does"),
        ("models:/digits/9", r"version=9\) not found"),
        ("models:/digits@none", "alias none not found"),
        ("models:/flowers/1", "name=flowers"),
    ],
)
def test_what_is_not_there_gets_one_line(files: Registry, uri: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as raised:
        find_version(uri)
    assert "\n" not in str(raised.value)


def test_a_model_of_another_project_has_no_lineage(files: Registry) -> None:
    files.client.create_registered_model("foreign")
    files.client.create_model_version("foreign", "file:///nowhere")
    with pytest.raises(UserError, match="models:/foreign/1 was not registered by this project"):
        find_version("models:/foreign/1")


def test_asking_makes_no_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "mlflow.db").unlink()
    with pytest.raises(TrackingError, match="there is no tracking store at sqlite:///"):
        find_runs(FINGERPRINT)
    assert not (project / "mlflow.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="does not answer"):
        find_version("models:/digits/1")
