"""data/prepared or data/features (train and val) -> models/classifier and reports/history.csv."""

from typing import TYPE_CHECKING

import click

from command import stage
from imageclf.files import file_errors_told
from imageclf.params import Params
from imageclf.project.folder import CLASSIFIER, HISTORY, PREPARED
from imageclf.text import printable
from imageclf.training.begin import begin_from_files, describe_classifier, runtime_of
from imageclf.training.device import place
from imageclf.training.history import TRACKED, write_history
from imageclf.training.torchrun import joined, launch, processes_to_start

if TYPE_CHECKING:
    from imageclf.tracking.live import LiveRun
    from imageclf.training.batch_sharing import Group
    from imageclf.training.checkpoint import Checkpoints
    from imageclf.training.loop import Position, Training


@stage
def main(params: Params) -> None:
    """Train the network; report live to the terminal and to MLflow.

    An interrupted training resumes from its last checkpoint. For several processes, torchrun runs
    this script in each of them.
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
    """Train in one of several processes; the first one writes the classifier."""
    from imageclf.tracking.live import LiveRun
    from imageclf.training.fingerprint import fingerprint

    if group.rank == 0:
        with LiveRun() as live:
            make_classifier(params, live, group)
        return
    _, training = begin_from_files(params, runtime_of(params).device, group)
    group.agree(fingerprint(params))
    training.restore(group.follow())
    if params.train.sanity_checks and training.is_fresh:
        training.trial_step()
    for _ in training.run():
        pass


def make_classifier(params: Params, live: "LiveRun", group: "Group | None" = None) -> None:
    """Train the classifier, and write it."""
    runtime = runtime_of(params)

    from imageclf.network.classifier import save_classifier
    from imageclf.tracking.messages import describe_run
    from imageclf.training.checkpoint import Checkpoints

    classifier, training = begin_from_files(params, runtime.device, group)
    description = describe_classifier(params)
    run = describe_run(
        params, description.fingerprint, description.data, weights=description.weights
    )
    together = f", {group.size} processes" if group else ""
    click.echo(f"training {run.name} on {runtime.device}, {runtime.threads} thread(s){together}")
    checkpoints = Checkpoints(description.fingerprint, params.runtime.checkpoint_minutes)
    resume(training, checkpoints)
    if group:
        group.agree(description.fingerprint)
        group.lead(training.state())
    live.begin(run, runtime.device, len(training.history), group.size if group else 1)
    if params.train.sanity_checks and training.is_fresh:
        look(training, live, description.class_names)
    train(training, checkpoints, live)
    write_history(training.history, HISTORY)
    save_classifier(
        classifier, description.model_copy(update={"epoch": training.best_epoch}), CLASSIFIER
    )
    checkpoints.clear()
    if training.stopped_early:
        patience = params.train.patience
        click.echo(f"stopped early: no epoch of the last {patience} had a lower val loss")
    click.echo(f"model of epoch {training.best_epoch}: {CLASSIFIER}, history: {HISTORY}")


def resume(training: "Training", checkpoints: "Checkpoints") -> None:
    """Go on from a checkpoint, if there is one."""
    checkpoints.clear_others()
    state = checkpoints.load()
    if state:
        training.restore(state)
        position = training.position
        click.echo(f"resuming in epoch {position.epoch}, after {position.images:,} images")


def look(training: "Training", live: "LiveRun", class_names: list[str]) -> None:
    """Check before the training whether it can work, and report its first batch."""
    from imageclf.data.prepared import load_split
    from imageclf.training.preview import SEEN, preview
    from imageclf.training.sanity import check

    for warning in check(training):
        click.secho(f"warning: {printable(warning)}", fg="red", bold=True, err=True)
    train_split = load_split(PREPARED, "train")
    live.log_first_batch(vars(preview(training.params, train_split, class_names, SEEN)))


def train(training: "Training", checkpoints: "Checkpoints", live: "LiveRun") -> None:
    """Run the training to its end, and report each step."""
    from imageclf.tracking.display import training_display
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


if __name__ == "__main__":
    main()
