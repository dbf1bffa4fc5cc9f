"""data/prepared (train and val) -> models/classifier and reports/history.csv."""

from dataclasses import asdict
from pathlib import Path

import click

from command import stage
from imageclf.files import atomic_writer, read_json
from imageclf.params import Params
from imageclf.runtime import prepare_runtime

PREPARED = Path("data/prepared")
MEASURED = ["learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
CACHED = ["epoch", *MEASURED]
# Times and speeds differ from run to run: they are tracked, but stand in no cached file.
TRACKED = [*MEASURED, "seconds", "images_per_second"]


@stage
def main(params: Params) -> None:
    """Train the network; report live to the terminal and to MLflow."""
    runtime = prepare_runtime(params)

    import pandas as pd

    from imageclf.classifier import Description, build_classifier, save_classifier
    from imageclf.datasets import load_class_names, load_split, split_digest
    from imageclf.display import training_display
    from imageclf.fingerprint import fingerprint
    from imageclf.live import LiveRun, describe_run
    from imageclf.training import train

    train_split, val_split = load_split(PREPARED, "train"), load_split(PREPARED, "val")
    class_names, stats = load_class_names(PREPARED), read_json(PREPARED / "stats.json")
    image_shape = train_split.images.shape[1:]
    classifier = build_classifier(params.model, stats, image_shape, len(class_names))
    digests = {name: split_digest(PREPARED, name) for name in ("train", "val")}
    run = describe_run(params, fingerprint(params), digests)
    click.echo(f"training {run.name} on {runtime.device}, {runtime.threads} thread(s)")
    epochs, images = params.train.epochs, len(train_split)
    with LiveRun(run, runtime.device) as live, training_display(epochs, images) as display:
        classifier.to(runtime.device)
        history = []
        for result in train(params, classifier, train_split, val_split, display.position):
            history.append(asdict(result))
            display.epoch(result)
            live.log_epoch(result.epoch, {name: history[-1][name] for name in TRACKED})
        with atomic_writer(Path("reports/history.csv")) as file:
            pd.DataFrame(history)[CACHED].to_csv(file, index=False)
        description = Description(
            fingerprint=run.fingerprint,
            class_names=class_names,
            image_shape=list(image_shape),
            mean=stats["mean"],
            std=stats["std"],
            model=params.model.model_dump(),
            data=digests,
            epoch=epochs,
        )
        save_classifier(classifier, description, Path("models/classifier"))
    click.echo("model: models/classifier, history: reports/history.csv")


if __name__ == "__main__":
    main()
