"""What a pretrained backbone brings where labels are few, between the data sets that are built in.

    python benchmarks/transfer.py --seeds 5

Trains the same small convolutional network on a few labels of each class: from weights drawn at
random, and from those that it has learnt on all of the other data set. A seed draws the labelled
images, the weights and the order of the batches. The stages fetch and transform prepare the data
in a temporary folder; the trainings are the train stage's own, without MLflow. Prints the accuracy
on the whole test split, mean and standard deviation over the seeds.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.params import changed, make_params
from imageclf.data.prepared import load_class_names, load_features, load_split
from imageclf.evaluation.metrics import predict
from imageclf.files import read_json
from imageclf.network.classifier import WHOLE, Description, save_classifier
from imageclf.network.pretrained import begin_classifier
from imageclf.params import Params
from imageclf.sources.weights import fetch_weights
from imageclf.tracking.queries import download_classifier
from imageclf.training.device import prepare_runtime
from imageclf.training.features import SPLITS, write_features
from imageclf.training.loop import Training
from recipes import run_stage

# Learnt on, transferred to, and labels a class there.
PAIRS = (("fashion_mnist", "mnist", 50), ("mnist", "fashion_mnist", 10), ("mnist", "digits", 5))
NETWORK = {
    "model__name": "cnn",
    "model__width": 16,
    "model__depth": 1,
    "model__output": "logits",
    "train__loss": "cross_entropy",
    "train__label_smoothing": 0.05,
    "train__optimizer": "adamw",
    "train__learning_rate": 0.01,
    "train__weight_decay": 0.05,
    "train__schedule": "one_cycle",
    "runtime__threads": 1,  # so that rounding does not depend on the number of cores
}
PRETRAINING = {"train__epochs": 3, "train__batch_size": 128, "transform__val_fraction": 0.01}
FEW = {"train__epochs": 40, "train__batch_size": 32, "transform__val_fraction": 0.005}
WAYS: dict[str, dict[str, Any]] = {
    "from scratch": {},
    "frozen backbone": {"model__freeze": "backbone"},
    "fine-tuned at a tenth of the rate": {"train__backbone_rate": 0.1},
    "fine-tuned at the full rate": {"train__backbone_rate": 1.0},
    "fine-tuned so, after its head": {
        "model__freeze": "then",
        "train__backbone_rate": 1.0,
        "train__head_epochs": 13,
    },
}


def prepare(folder: Path, **settings: Any) -> None:
    """Fetch and transform the data of these settings."""
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(json.dumps(changed(**settings)))
    for stage in ("fetch", "transform"):
        if stage == "transform" or not (folder / "data/raw").exists():
            run_stage(stage, folder)


def train(params: Params, folder: Path) -> tuple[Any, float]:
    """Train as the stages do; the classifier, and its accuracy on the test split."""
    from rich.console import Console

    runtime = prepare_runtime(params)
    prepared, pretrained = folder / "data/prepared", folder / "models/pretrained"
    fetch_weights(params.model, pretrained, Console(quiet=True), download_classifier)
    splits = {name: load_split(prepared, name) for name in SPLITS}
    stats, shape = read_json(prepared / "stats.json"), splits["train"].images.shape[1:]
    classifier = begin_classifier(params.model, stats, pretrained, shape, classes=10)
    learns, seen = classifier.to(runtime.device), splits
    if params.trains_on_features:
        features = torch.inference_mode()(classifier.eval().features)
        for name, split in splits.items():
            path = folder / f"{name}.npy"
            write_features(features, runtime.device, split, path, lambda _: None)
        learns = classifier.network.head
        seen = {name: load_features(folder, name, split) for name, split in splits.items()}
    for _ in Training(params, learns, seen["train"], seen["val"], 10).run():
        pass
    predictions = predict(classifier, load_split(prepared, "test"))
    return classifier, float((predictions.predicted == predictions.labels).mean())


def pretrain(source: str, folder: Path) -> Path:
    """A classifier of all of a data set, as the train stage leaves it."""
    settings = {"data__name": source} | NETWORK | PRETRAINING
    prepare(folder, **settings)
    params, prepared = make_params(**settings), folder / "data/prepared"
    classifier, accuracy = train(params, folder)
    click.echo(f"{source}: {accuracy:.2%} with all its labels", err=True)
    stats = read_json(prepared / "stats.json")
    told = Description(
        fingerprint="0" * 64,
        class_names=load_class_names(prepared),
        image_shape=[28, 28],
        fit=stats["fit"],
        mean=stats["mean"],
        std=stats["std"],
        model=params.model.model_dump(exclude=set(WHOLE)),
        data={},
        weights={},
        epoch=params.train.epochs,
    )
    save_classifier(classifier, told, folder / "models/classifier")
    return folder / "models/classifier"


@click.command()
@click.option("--seeds", default=5, show_default=True, help="How many, from 1.")
def main(seeds: int) -> None:
    """Print a table of Markdown."""
    columns = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        weights = {source: pretrain(source, work / source) for source in ("fashion_mnist", "mnist")}
        for source, target, labels in PAIRS:
            few = {"data__name": target, "transform__train_per_class": labels} | NETWORK | FEW
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            for seed in range(1, seeds + 1):
                prepare(work / f"few {target}", **few, seed=seed)
                for way, how in WAYS.items():
                    begun = {"model__weights": str(weights[source])} if how else {}
                    params = make_params(**few | how | begun, seed=seed)
                    _, accuracy = train(params, work / f"few {target}")
                    found[way].append(100 * accuracy)
                    click.echo(f"{target}, seed {seed}, {way}: {accuracy:.2%}", err=True)
            columns[f"{source} to {target}, {labels} labels a class"] = found
    click.echo(f"| | {' | '.join(columns)} |")
    click.echo(f"| --- |{' ---: |' * len(columns)}")
    for way in WAYS:
        click.echo(f"| {way} | {' | '.join(spread(found[way]) for found in columns.values())} |")


def spread(accuracies: list[float]) -> str:
    """Mean and standard deviation in percent."""
    deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    return f"{statistics.mean(accuracies):.2f} ± {deviation:.2f} %"


if __name__ == "__main__":
    main()
