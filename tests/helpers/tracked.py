"""A finished training and its models, as MLflow is told of them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient

from helpers.descriptions import DIGESTS, FINGERPRINT, described, epoch
from helpers.params import params_text
from imageclf.files import sha256_file
from imageclf.tracking.connection import tracking_uri
from imageclf.tracking.gate import Identity, read_candidate
from imageclf.tracking.journal import Journal
from imageclf.tracking.messages import File, Item, Metrics, RunDescription
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.registry import Model, Registration, register
from imageclf.tracking.runs import synchronise

EPOCHS = (1, 2, 3)
IMAGES = 100
LOCK = json.dumps({"stages": {"train": {"cmd": "true", "outs": [{"path": "a", "md5": "1" * 32}]}}})


@dataclass
class FinishedTraining:
    """What the files of a finished training tell, and the store it is told to."""

    folder: Path
    onnx: Path

    def synchronise(
        self,
        description: RunDescription | None = None,
        items: list[Item] | None = None,
        restored: bool = False,
    ) -> Any:
        tested = Metrics(0, {"test_accuracy": 0.9}, 5000)
        told = [*(epoch(number) for number in EPOCHS), tested, *(items or [])]
        return synchronise(description or described(), told, restored, ended=4000)

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri(self.folder))

    def runs(self) -> list[Any]:
        experiments = [each.experiment_id for each in self.client.search_experiments()]
        return list(self.client.search_runs(experiments))

    def history(self, key: str) -> list[tuple[int, float, int]]:
        (run,) = self.runs()
        points = self.client.get_metric_history(run.info.run_id, key)
        return sorted((point.step, point.value, point.timestamp) for point in points)


class Registry(FinishedTraining):
    """Models that differ in what they were trained from and get right, not in their file."""

    def register(
        self,
        right: int = 80,
        fingerprint: str = FINGERPRINT,
        name: str = "digits",
        test_digest: str = DIGESTS["test"],
        **params: Any,
    ) -> Registration:
        """A model that has the first so many of the test images right."""
        self.write_evidence(right)
        description = described(**params)
        tags = description.tags | {"fingerprint": fingerprint}
        items = [File(Path("reports"), "reports")]
        items += [File(Path("models/exported/parity.json"), "models/exported")]
        run = self.synchronise(replace(description, fingerprint=fingerprint, tags=tags), items)
        identity = Identity(fingerprint, sha256_file(self.onnx), test_digest)
        example = np.zeros((2, 8, 8), np.uint8)
        model = Model(name, self.onnx, example, ["a", "b", "c", "d"])
        return register(run, model, read_candidate(Path(), identity))

    def write_evidence(self, right: int) -> None:
        """What the gate reads, as the stages write it."""
        values = {
            "reports/metrics.json": {
                "accuracy": right / IMAGES,
                "accuracy_low": right / IMAGES - 0.1,
                "majority_accuracy": 0.1,
                "images": IMAGES,
            },
            "reports/data.json": {"images": {"test": IMAGES}, "leaks": []},
            "models/exported/parity.json": {
                "agree": True,
                "sha256": {"model.onnx": sha256_file(self.onnx)},
            },
        }
        for name, value in values.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(json.dumps(value))
        Path("reports/evaluation").mkdir(exist_ok=True)
        rows = ["a,a,0.9,0.1\n"] * right + ["a,b,0.6,1.2\n"] * (IMAGES - right)
        table = "actual,predicted,probability,loss\n" + "".join(rows)
        Path("reports/evaluation/predictions.csv").write_text(table)

    def champion(self, name: str = "digits") -> str:
        return str(self.client.get_model_version_by_alias(name, "champion").version)

    def tag(self, version: str, tag: str = "promotion") -> str:
        tags: dict[str, str] = self.client.get_model_version("digits", version).tags
        return tags[tag]


def keep(fingerprint: str = FINGERPRINT, **origin: str) -> Journal:
    """A journal, as the register stage leaves it."""
    tags = {"fingerprint": fingerprint}
    description = replace(
        described(), fingerprint=fingerprint, tags=tags, origin=Provenance.from_tags(origin)
    )
    journal = Journal(fingerprint)
    journal.register(description, {"params.yaml": params_text(), "dvc.lock": LOCK}, False, 1000)
    return journal
