"""Models that should and should not become the champion, trained, registered and asked for real."""

import numpy as np
import onnx
import pandas as pd
import pytest
from mlflow import MlflowClient

from helpers.project import Project
from imageclf.files import read_json
from imageclf.project.folder import PREDICTIONS

pytestmark = pytest.mark.slow
CHAMPION, CHALLENGER = "champion", "challenger"


class Models:
    """A project whose champion is version 1, which saw each train image once."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.client = MlflowClient(f"sqlite:///{project.folder}/mlflow.db")
        assert self.train().startswith("promoted: there was no champion; ")

    def train(self, **changes: str) -> str:
        """What the gate says of a model with some parameters other than version 1's."""
        self.project.run("git", "checkout", "--quiet", "params.yaml")
        for path, value in {"train__epochs": "1", **changes}.items():
            self.project.set(path.replace("__", "."), value)
        assert self.project.repro()[-1] == "register"
        return self.tag()

    def tag(self, alias: str = CHALLENGER) -> str:
        tags: dict[str, str] = self.client.get_model_version_by_alias("digits", alias).tags
        return tags["promotion"]

    def version(self, alias: str) -> str:
        return str(self.client.get_model_version_by_alias("digits", alias).version)

    def promote(self, *arguments: str) -> list[str]:
        """The lines that the command prints."""
        return self.project.run("imageclf", "promote", *arguments, check=False).splitlines()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(Project(tmp_path_factory.mktemp("project")))


def test_predictions_are_in_the_order_of_the_test_split(models: Models) -> None:
    prepared = models.project.folder / "data/prepared"
    names = np.array(read_json(prepared / "classes.json"))
    table = pd.read_csv(models.project.folder / PREDICTIONS, dtype=str)
    assert table["actual"].tolist() == names[np.load(prepared / "test.labels.npy")].tolist()


def test_a_worse_model_is_refused(models: Models) -> None:
    decision = models.train(train__learning_rate="0.0003")
    assert decision.startswith("refused: no better than the champion: where they differ, right ")
    assert models.version(CHAMPION) == "1"


def test_an_equal_model_is_refused(models: Models) -> None:
    decision = models.train(train__weight_decay="0.0001")
    assert decision.startswith("refused: no")  # no better, or not clearly better
    assert " better than the champion: where they differ, right " in decision
    assert models.version(CHALLENGER) == "3"
    assert models.version(CHAMPION) == "1"


def test_a_model_no_better_than_guessing_is_refused(models: Models) -> None:
    decision = models.train(train__learning_rate="1e-9", train__sanity_checks="false")
    assert "not clearly better than always guessing the commonest class" in decision
    assert models.version(CHAMPION) == "1"


def test_a_better_model_tested_on_other_data_is_refused(models: Models) -> None:
    decision = models.train(transform__test_fraction="0.25", train__epochs="20")
    assert decision.startswith("refused: the champion was tested on other data")
    assert models.version(CHAMPION) == "1"


def test_an_export_that_disagrees_is_not_registered_at_all(models: Models) -> None:
    newest = models.version(CHALLENGER)
    models.project.set("export.tolerance", "1e-12")
    output = models.project.run("dvc", "repro", check=False)
    assert "error: model.onnx disagrees with the model" in output
    assert "Running stage 'register'" not in output
    assert models.version(CHALLENGER) == newest
    assert models.version(CHAMPION) == "1"


def test_a_better_model_is_promoted(models: Models) -> None:
    decision = models.train(train__epochs="20")
    assert decision.startswith("promoted: better than the champion: where they differ, right ")
    assert models.version(CHAMPION) == models.version(CHALLENGER) == "6"


def test_the_way_back_and_forward(models: Models) -> None:
    assert models.promote("--back", "digits") == ["champion: version 1, no longer version 6"]
    assert models.version(CHAMPION) == "1"
    refused = models.promote("digits/2")
    assert refused[0].startswith(
        "refused: version 2: no better than the champion: where they differ, right "
    )
    assert refused[-1] == "champion: version 1"
    promoted = models.promote("models:/digits/6")
    assert promoted[0].startswith(
        "promoted: version 6: better than the champion: where they differ, right "
    )
    assert promoted[-1] == "champion: version 6"
    assert models.version(CHAMPION) == "6"


def test_a_file_that_export_did_not_write_is_not_registered(models: Models) -> None:
    path = models.project.folder / "models/exported/model.onnx"
    path.chmod(0o644)
    model = onnx.load(path)
    model.doc_string = "changed since the export stage"
    path.write_bytes(model.SerializeToString())
    stage = ("env", "PYTHONPATH=src:stages", "python", "stages/register.py")
    said = models.project.run(*stage, check=False)
    assert "error: models/exported is not what dvc.lock records: `imageclf verify`" in said
    assert models.version(CHALLENGER) == models.version(CHAMPION) == "6"
