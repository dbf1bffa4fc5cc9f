"""data/prepared or data/features (train and val) -> models/classifier and reports/history.csv."""

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from command import stage
from imageclf.files import read_json, write_text
from imageclf.params import Params
from imageclf.runtime import prepare_runtime

if TYPE_CHECKING:
    from imageclf.checkpoint import Checkpoints
    from imageclf.datasets import Split
    from imageclf.live import LiveRun
    from imageclf.training import Position, Training

PREPARED, FEATURES = Path("data/prepared"), Path("data/features")
PRETRAINED = Path("models/pretrained")
MEASURED = ["learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
CACHED = ["epoch", *MEASURED]
# Times and speeds differ from run to run: they are tracked, but stand in no cached file.
TRACKED = [*MEASURED, "seconds", "images_per_second"]


@stage
def main(params: Params) -> None:
    """Train the network; report live to the terminal and to MLflow.

    A training that was interrupted goes on from its last checkpoint.
    """
    from imageclf.live import LiveRun

    with LiveRun() as live:
        make_classifier(params, live)


def make_classifier(params: Params, live: "LiveRun") -> None:
    """Train it, and write it."""
    runtime = prepare_runtime(params, "mlp" if params.trains_on_features else params.model.name)

    from imageclf.checkpoint import Checkpoints
    from imageclf.classifier import WHOLE, Description, save_classifier
    from imageclf.datasets import load_class_names, load_features, load_split, split_digest
    from imageclf.fingerprint import fingerprint
    from imageclf.live import describe_run
    from imageclf.pretrained import begin_classifier, read_pretrained
    from imageclf.training import Training

    splits = {name: load_split(PREPARED, name) for name in ("train", "val")}
    class_names, stats = load_class_names(PREPARED), read_json(PREPARED / "stats.json")
    image_shape, classes = splits["train"].images.shape[1:], len(class_names)
    classifier = begin_classifier(params.model, stats, PRETRAINED, image_shape, classes)
    learns, seen = classifier.to(runtime.device), splits
    if params.trains_on_features:
        learns = classifier.network.head
        seen = {name: load_features(FEATURES, name, split) for name, split in splits.items()}
    training = Training(params, learns, seen["train"], seen["val"], classes)
    digests = {name: split_digest(PREPARED, name) for name in splits}
    pretrained = read_pretrained(PRETRAINED)
    weights = pretrained.origin if pretrained else {}
    run = describe_run(params, fingerprint(params), digests, weights=weights)
    click.echo(f"training {run.name} on {runtime.device}, {runtime.threads} thread(s)")
    checkpoints = Checkpoints(run.fingerprint, params.runtime.checkpoint_minutes)
    resumed = resume(training, checkpoints)
    live.begin(run, runtime.device, len(training.history))
    if params.train.sanity_checks and not resumed:
        look(training, live, splits["train"], class_names)
    train(training, checkpoints, live)
    write_history(training)
    description = Description(
        fingerprint=run.fingerprint,
        class_names=class_names,
        image_shape=list(image_shape),
        fit=stats["fit"],
        mean=pretrained.mean if pretrained else stats["mean"],
        std=pretrained.std if pretrained else stats["std"],
        model=params.model.model_dump(exclude=set(WHOLE)),
        data=digests,
        weights=weights,
        epoch=training.best_epoch,
    )
    save_classifier(classifier, description, Path("models/classifier"))
    checkpoints.clear()
    click.echo(
        f"model of epoch {training.best_epoch}: models/classifier, history: reports/history.csv"
    )


def resume(training: "Training", checkpoints: "Checkpoints") -> bool:
    """Go on from a checkpoint, if there is one."""
    checkpoints.clear_others()
    state = checkpoints.load()
    if state:
        training.restore(state)
        position = training.position
        click.echo(f"resuming in epoch {position.epoch}, after {position.images:,} images")
    return bool(state)


def look(training: "Training", live: "LiveRun", train: "Split", class_names: list[str]) -> None:
    """Before a long training, look whether it can work at all, and show its first batch."""
    from imageclf.preview import SEEN, preview
    from imageclf.sanity import check

    for warning in check(training):
        click.secho(f"warning: {warning}", fg="red", bold=True, err=True)
    live.log_first_batch(vars(preview(training.params, train, class_names, SEEN)))


def train(training: "Training", checkpoints: "Checkpoints", live: "LiveRun") -> None:
    """Run the training to its end, reporting on the way."""
    from imageclf.display import training_display
    from imageclf.sanity import ChanceWatch

    watch = ChanceWatch(training.majority)
    with training_display(training) as display:

        def on_step(position: "Position") -> None:
            display.position(position)
            display.warn(watch.during(position))
            if checkpoints.is_due():
                checkpoints.save(training.state())

        for result in training.run(on_step):
            checkpoints.save(training.state())
            live.log_epoch(result.epoch, {name: getattr(result, name) for name in TRACKED})
            display.epoch(result)
            display.warn(watch.after(result, training.val_images))


def write_history(training: "Training") -> None:
    """Write reports/history.csv."""
    rows = (asdict(result) for result in training.history)
    table = io.StringIO()
    writer = csv.DictWriter(table, CACHED, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(Path("reports/history.csv"), table.getvalue())


if __name__ == "__main__":
    main()
