"""data/prepared or data/features (train and val) -> models/classifier and reports/history.csv."""

import csv
import io
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from command import stage
from imageclf.files import file_errors_told, read_json, write_text
from imageclf.params import Params
from imageclf.project.folder import CLASSIFIER, FEATURES, HISTORY, PREPARED, PRETRAINED
from imageclf.training.device import Runtime, place, prepare_runtime
from imageclf.training.torchrun import joined, launch, processes_to_start

if TYPE_CHECKING:
    import torch

    from imageclf.network.classifier import Classifier
    from imageclf.tracking.live import LiveRun
    from imageclf.training.batch_sharing import Group
    from imageclf.training.checkpoint import Checkpoints
    from imageclf.training.loop import Position, Training

MEASURED = ["learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
CACHED = ["epoch", *MEASURED]
# Times and speeds differ from run to run: they are tracked, but stand in no cached file.
TRACKED = [*MEASURED, "seconds", "images_per_second"]


@stage
def main(params: Params) -> None:
    """Train the network; report live to the terminal and to MLflow.

    A training that was interrupted goes on from its last checkpoint. Where several processes are
    asked for, torchrun runs this script in each of them.
    """
    from imageclf.tracking.live import LiveRun

    if place():
        with joined() as group, file_errors_told():
            train_together(params, group)
        return
    with LiveRun() as live:
        processes = processes_to_start(params.runtime)
        if not processes:
            make_classifier(params, live)
            return
    launch(processes)


def train_together(params: Params, group: "Group") -> None:
    """What one of several processes does: the first makes the classifier, the others take part."""
    from imageclf.tracking.live import LiveRun
    from imageclf.training.fingerprint import fingerprint

    if group.rank == 0:
        with LiveRun() as live:
            make_classifier(params, live, group)
        return
    _, training = fresh_training(params, runtime_of(params).device, group)
    group.agree(fingerprint(params))
    training.restore(group.follow())
    if params.train.sanity_checks and training.is_fresh:
        training.trial_step()
    for _ in training.run():
        pass


def runtime_of(params: Params) -> Runtime:
    """Where and how the training computes: a head alone is a small fully connected network."""
    return prepare_runtime(params, "mlp" if params.trains_on_features else params.model.name)


def fresh_training(
    params: Params, device: "torch.device", group: "Group | None" = None
) -> "tuple[Classifier, Training]":
    """The whole classifier, and a training of it, or of its head alone, before its first step."""
    from imageclf.data.prepared import load_class_names, load_features, load_split
    from imageclf.network.pretrained import begin_classifier
    from imageclf.training.loop import Training

    splits = {name: load_split(PREPARED, name) for name in ("train", "val")}
    shape, classes = splits["train"].images.shape[1:], len(load_class_names(PREPARED))
    stats = read_json(PREPARED / "stats.json")
    classifier = begin_classifier(params.model, stats, PRETRAINED, shape, classes).to(device)
    learns: Classifier | torch.nn.Sequential = classifier
    if params.trains_on_features:
        learns = classifier.network.head
        splits = {name: load_features(FEATURES, name, split) for name, split in splits.items()}
    return classifier, Training(params, learns, splits["train"], splits["val"], classes, group)


def make_classifier(params: Params, live: "LiveRun", group: "Group | None" = None) -> None:
    """Train it, and write it."""
    runtime = runtime_of(params)

    from imageclf.data.prepared import load_class_names, load_split, split_digest
    from imageclf.network.classifier import WHOLE, Description, save_classifier
    from imageclf.network.pretrained import read_pretrained
    from imageclf.tracking.messages import describe_run
    from imageclf.training.checkpoint import Checkpoints
    from imageclf.training.fingerprint import fingerprint

    classifier, training = fresh_training(params, runtime.device, group)
    class_names, stats = load_class_names(PREPARED), read_json(PREPARED / "stats.json")
    digests = {name: split_digest(PREPARED, name) for name in ("train", "val")}
    pretrained = read_pretrained(PRETRAINED)
    weights = pretrained.origin if pretrained else {}
    run = describe_run(params, fingerprint(params), digests, weights=weights)
    together = f", {group.size} processes" if group else ""
    click.echo(f"training {run.name} on {runtime.device}, {runtime.threads} thread(s){together}")
    checkpoints = Checkpoints(run.fingerprint, params.runtime.checkpoint_minutes)
    resume(training, checkpoints)
    if group:
        group.agree(run.fingerprint)
        group.lead(training.state())
    live.begin(run, runtime.device, len(training.history), group.size if group else 1)
    if params.train.sanity_checks and training.is_fresh:
        look(training, live, class_names)
    train(training, checkpoints, live)
    write_history(training)
    description = Description(
        fingerprint=run.fingerprint,
        class_names=class_names,
        image_shape=list(load_split(PREPARED, "train").images.shape[1:]),
        fit=stats["fit"],
        mean=pretrained.mean if pretrained else stats["mean"],
        std=pretrained.std if pretrained else stats["std"],
        model=params.model.model_dump(exclude=set(WHOLE)),
        data=digests,
        weights=weights,
        epoch=training.best_epoch,
    )
    save_classifier(classifier, description, CLASSIFIER)
    checkpoints.clear()
    if training.stopped_early:
        patience = params.train.patience
        click.echo(f"stopped early: no epoch of the last {patience} had a lower val loss")
    click.echo(
        f"model of epoch {training.best_epoch}: models/classifier, history: reports/history.csv"
    )


def resume(training: "Training", checkpoints: "Checkpoints") -> None:
    """Go on from a checkpoint, if there is one."""
    checkpoints.clear_others()
    state = checkpoints.load()
    if state:
        training.restore(state)
        position = training.position
        click.echo(f"resuming in epoch {position.epoch}, after {position.images:,} images")


def look(training: "Training", live: "LiveRun", class_names: list[str]) -> None:
    """Before a long training, look whether it can work at all, and show its first batch."""
    from imageclf.data.prepared import load_split
    from imageclf.training.preview import SEEN, preview
    from imageclf.training.sanity import check

    for warning in check(training):
        click.secho(f"warning: {warning}", fg="red", bold=True, err=True)
    train_split = load_split(PREPARED, "train")
    live.log_first_batch(vars(preview(training.params, train_split, class_names, SEEN)))


def train(training: "Training", checkpoints: "Checkpoints", live: "LiveRun") -> None:
    """Run the training to its end, reporting on the way."""
    from imageclf.training.display import training_display
    from imageclf.training.sanity import ChanceWatch

    watch = ChanceWatch(training)
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
            display.warn(watch.after(result))


def write_history(training: "Training") -> None:
    """Write reports/history.csv."""
    rows = (asdict(result) for result in training.history)
    table = io.StringIO()
    writer = csv.DictWriter(table, CACHED, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(HISTORY, table.getvalue())


if __name__ == "__main__":
    main()
