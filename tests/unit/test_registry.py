from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_tracking import DIGESTS, FINGERPRINT, Project, described

from imageclf.files import UserError, sha256_file
from imageclf.promotion import Candidate
from imageclf.registry import Model, Registration, download_model, register


class Registry(Project):
    """Models that differ in their fingerprint and figures, not in their file."""

    def register(
        self, name: str = "digits", fingerprint: str = FINGERPRINT, **figures: Any
    ) -> Registration:
        description = described(**figures.pop("params", {}))
        tags = description.tags | {"fingerprint": fingerprint}
        run = self.synchronise(replace(description, fingerprint=fingerprint, tags=tags))
        candidate = Candidate(
            fingerprint=fingerprint,
            sha256=sha256_file(self.onnx),
            test_digest=DIGESTS["test"],
            accuracy=0.9,
            accuracy_low=0.8,
            majority_accuracy=0.1,
            exports_agree=True,
        )
        example = np.zeros((2, 8, 8), np.uint8)
        model = Model(name, self.onnx, example, ["a", "b", "c", "d"])
        return register(run, model, replace(candidate, **figures))


@pytest.fixture
def models(project: Path, onnx_file: Path) -> Registry:
    return Registry(project, onnx_file)


def test_the_registered_model_is_the_exported_file(models: Registry) -> None:
    done = models.register()
    client = models.client
    version = client.get_model_version_by_alias("digits", "champion")
    assert version.version == client.get_model_version_by_alias("digits", "challenger").version
    assert str(version.version) == done.version == "1"
    assert version.tags["fingerprint"] == FINGERPRINT
    assert version.tags["sha256"] == sha256_file(models.onnx)
    assert version.tags["promotion"] == "promoted: there was no champion"
    (run,) = models.runs()
    assert version.run_id == run.info.run_id
    folder = download_model("models:/digits@champion")
    assert (folder / "model.onnx").read_bytes() == models.onnx.read_bytes()
    assert sorted(path.name for path in folder.glob("*.onnx*")) == ["model.onnx"]
    requirements = (folder / "requirements.txt").read_text()
    assert "onnxruntime==" in requirements
    assert "torch" not in requirements
    assert "imageclf" not in requirements


def test_doing_it_again_changes_nothing(models: Registry) -> None:
    first = models.register()
    (before,) = models.runs()
    again = models.register()
    (run,) = models.runs()
    assert run.to_dictionary() == before.to_dictionary()
    assert again.version == first.version == "1"
    assert again.decision.promoted
    assert len(models.client.search_model_versions()) == 1
    assert len(models.client.search_logged_models([run.info.experiment_id])) == 1


def test_a_run_that_replaces_another_keeps_its_model(models: Registry) -> None:
    models.register()
    (before,) = models.runs()
    models.register(params={"evaluate__top_k": 5})
    (run,) = models.runs()
    assert run.info.run_id != before.info.run_id
    assert run.outputs.to_dictionary() == before.outputs.to_dictionary()
    assert len(models.client.search_model_versions()) == 1


def test_only_a_better_model_becomes_the_champion(models: Registry) -> None:
    models.register()
    for fingerprint, accuracy, champion in [("a", 0.9, 1), ("b", 0.95, 3), ("c", 0.94, 3)]:
        done = models.register(fingerprint=fingerprint * 64, accuracy=accuracy)
        newest = models.client.get_model_version_by_alias("digits", "challenger")
        assert str(newest.version) == done.version
        assert newest.tags["promotion"] == str(done.decision)
        assert models.client.get_model_version_by_alias("digits", "champion").version == champion
    assert len(models.runs()) == 4
    assert str(done.decision) == "refused: accuracy 0.9400 is not better than the champion's 0.9500"


def test_a_champion_of_unknown_origin_is_not_beaten(models: Registry) -> None:
    models.register()
    for tag in ("accuracy", "test_digest", "fingerprint"):
        models.client.delete_model_version_tag("digits", "1", tag)
    done = models.register()
    assert not done.decision.promoted
    assert "tested on other data" in str(done.decision)


def test_the_same_file_under_another_name_is_another_version(models: Registry) -> None:
    assert models.register(name="digits").version == "1"
    assert models.register(name="it's mine").version == "1"
    assert models.register(name="it's mine").version == "1"


def test_no_such_model(project: Path) -> None:
    with pytest.raises(UserError, match="Registered Model with name=nothing not found"):
        download_model("models:/nothing@champion")
