"""data/prepared (train and val) -> models/classifier, reports/history.csv, reports/training."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from command import stage
from imageclf.files import atomic_folder, atomic_writer, read_json
from imageclf.params import Params
from imageclf.runtime import Runtime, prepare_runtime

if TYPE_CHECKING:
    from imageclf.checkpoint import Checkpoints
    from imageclf.datasets import Split
    from imageclf.live import RunDescription
    from imageclf.training import Position, Training

PREPARED = Path("data/prepared")
MEASURED = ["learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
CACHED = ["epoch", *MEASURED]
# Times and speeds differ from run to run: they are tracked, but stand in no cached file.
TRACKED = [*MEASURED, "seconds", "images_per_second"]
PICTURES = 16


@stage
def main(params: Params) -> None:
    """Train the network; report live to the terminal and to MLflow.

    A training that was interrupted goes on from its last checkpoint.
    """
    runtime = prepare_runtime(params)

    from imageclf.checkpoint import Checkpoints
    from imageclf.classifier import Description, build_classifier, save_classifier
    from imageclf.datasets import load_class_names, load_split, split_digest
    from imageclf.fingerprint import fingerprint
    from imageclf.live import describe_run
    from imageclf.training import Training

    train_split, val_split = load_split(PREPARED, "train"), load_split(PREPARED, "val")
    class_names, stats = load_class_names(PREPARED), read_json(PREPARED / "stats.json")
    image_shape = train_split.images.shape[1:]
    classifier = build_classifier(params.model, stats, image_shape, len(class_names))
    training = Training(
        params, classifier.to(runtime.device), train_split, val_split, len(class_names)
    )
    digests = {name: split_digest(PREPARED, name) for name in ("train", "val")}
    run = describe_run(params, fingerprint(params), digests)
    checkpoints = Checkpoints(run.fingerprint, params.runtime.checkpoint_minutes)
    begin(training, checkpoints, run, runtime)
    train(training, checkpoints, run, runtime)
    description = Description(
        fingerprint=run.fingerprint,
        class_names=class_names,
        image_shape=list(image_shape),
        mean=stats["mean"],
        std=stats["std"],
        model=params.model.model_dump(),
        data=digests,
        epoch=training.best_epoch,
    )
    write_pictures(training, train_split, class_names)
    save_classifier(classifier, description, Path("models/classifier"))
    checkpoints.clear()
    click.echo(f"model of epoch {training.best_epoch}: models/classifier")
    click.echo("history: reports/history.csv, pictures: reports/training")


def begin(
    training: "Training", checkpoints: "Checkpoints", run: "RunDescription", runtime: Runtime
) -> None:
    """Go on from a checkpoint if there is one; otherwise look whether training can work at all."""
    from imageclf.sanity import check

    click.echo(f"training {run.name} on {runtime.device}, {runtime.threads} thread(s)")
    checkpoints.clear_others()
    if state := checkpoints.load():
        training.restore(state)
        position = training.position
        click.echo(f"resuming in epoch {position.epoch}, after {position.images:,} images")
    elif training.params.train.sanity_checks:
        for warning in check(training):
            click.secho(f"warning: {warning}", fg="red", bold=True, err=True)


def train(
    training: "Training", checkpoints: "Checkpoints", run: "RunDescription", runtime: Runtime
) -> None:
    """Run the training to its end, reporting on the way; write its history."""
    import pandas as pd

    from imageclf.display import training_display
    from imageclf.live import LiveRun
    from imageclf.sanity import ChanceWatch

    watch = ChanceWatch(training.majority)
    with LiveRun(run, runtime.device) as live, training_display(training) as display:

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
        history = pd.DataFrame(asdict(result) for result in training.history)
        with atomic_writer(Path("reports/history.csv")) as file:
            history[CACHED].to_csv(file, index=False)


def write_pictures(training: "Training", train_split: "Split", class_names: list[str]) -> None:
    """Draw what the network saw first, and what its weights became."""
    import torch

    from imageclf import plots
    from imageclf.augment import preview
    from imageclf.training import epoch_order

    params = training.params
    first = epoch_order(len(train_split), params.seed, epoch=1)[:PICTURES].numpy()
    images, labels = train_split.images[first], train_split.labels[first]
    seen = preview(
        torch.from_numpy(images), torch.from_numpy(labels), params, len(class_names)
    ).numpy()
    weights = {
        name.removeprefix("network."): value.float().cpu().numpy()
        for name, value in training.classifier.state_dict().items()
    }
    layer = next(value for value in weights.values() if value.ndim in {2, 4})
    with atomic_folder(Path("reports/training")) as folder:
        names = [class_names[label] for label in labels]
        plots.save_figure(plots.pairs(images, seen, names), folder / "first_batch.png")
        plots.save_figure(plots.weight_histograms(weights), folder / "weights.png")
        plots.save_figure(plots.first_filters(layer, images.shape[1:]), folder / "filters.png")


if __name__ == "__main__":
    main()
