"""Everything the other stages wrote -> MLflow; nothing on disk."""

import csv
from dataclasses import replace
from pathlib import Path

import click

from command import stage
from imageclf.files import UserError, read_json, sha256_file
from imageclf.live import Dataset, File, Item, Metrics, describe_run, machine_of, now_ms
from imageclf.params import Params
from imageclf.promotion import Candidate

PREPARED, REPORTS, EXPORTED = Path("data/prepared"), Path("reports"), Path("models/exported")
HISTORY, ONNX = REPORTS / "history.csv", EXPORTED / "model.onnx"
TEST_IMAGES = PREPARED / "test.images.npy"
SPLITS = ("train", "val", "test")


@stage
def main(params: Params) -> None:
    """Bring MLflow up to date: run, metrics, pictures, model version and aliases."""
    import numpy as np

    from imageclf.tracking import Model, synchronise

    for path in (HISTORY, ONNX, TEST_IMAGES):
        if not path.exists():
            raise UserError(f"{path} is missing: run `dvc repro` to make it")
    classifier = read_json(Path("models/classifier/model.json"))
    digests = read_json(PREPARED / "digests.json")
    machine = machine_of(classifier["fingerprint"])
    description = describe_run(params, classifier["fingerprint"], digests)
    done = synchronise(
        replace(description, origin=description.origin | (machine or {})),
        items(params.data.name, digests),
        Model(
            name=params.register_.name,
            path=ONNX,
            example=np.array(np.load(TEST_IMAGES, mmap_mode="r")[:2]),
            class_names=classifier["class_names"],
        ),
        candidate(classifier["fingerprint"], digests["test"]),
        restored=machine is None,
    )
    click.echo(f"run: {done.run_name}{' (restored from a cache)' if machine is None else ''}")
    aliases = f", {' and '.join(done.aliases)}" if done.aliases else ""
    click.echo(f"model: {params.register_.name} version {done.version}{aliases}")
    click.echo(f"champion: {done.decision}")
    click.echo(f"compare the runs: {done.store if done.store.startswith('http') else 'make ui'}")


def items(data_name: str, digests: dict[str, str]) -> list[Item]:
    """What the files tell about the run."""
    with HISTORY.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    history = [Metrics(int(row.pop("epoch")), row, now_ms()) for row in rows]
    figures = read_json(REPORTS / "metrics.json")
    test = {f"test_{name}": float(value) for name, value in figures.items()}
    counts = read_json(REPORTS / "data.json")["images"]
    names = ("data.json", "data.html", "history.csv", "metrics.json")
    files = [File(REPORTS / name, "reports") for name in names]
    files += [File(REPORTS / "evaluation", "reports/evaluation")]
    files += [File(Path(name)) for name in ("params.yaml", "dvc.lock")]
    return [
        *history,
        Metrics(0, test, now_ms()),
        *(
            Dataset(name, data_name, digests[name], f"{PREPARED}/{name}.images.npy", counts[name])
            for name in SPLITS
        ),
        *(file for file in files if file.path.exists()),
    ]


def candidate(fingerprint: str, test_digest: str) -> Candidate:
    """The model's figures, for the gate."""
    figures = read_json(REPORTS / "metrics.json")
    return Candidate(
        fingerprint=fingerprint,
        sha256=sha256_file(ONNX),
        test_digest=test_digest,
        accuracy=figures["accuracy"],
        accuracy_low=figures["accuracy_low"],
        majority_accuracy=figures["majority_accuracy"],
        exports_agree=read_json(EXPORTED / "parity.json")["agree"],
    )


if __name__ == "__main__":
    main()
