"""`imageclf suspects`."""

import click

from imageclf.commands.common import examples
from imageclf.project.folder import PREPARED, REPORTS


@click.command(epilog=examples("imageclf suspects", "imageclf suspects --folds 10"))
@click.option(
    "--folds",
    type=click.IntRange(2, 50),
    default=5,
    show_default=True,
    metavar="N",
    help="Train N networks, each on all but one of N parts of the images.",
)
def suspects(folds: int) -> None:
    """List train and val images whose label is probably wrong.

    Trains on parts of data/prepared, as params.yaml says, and lets each network judge the part
    that it did not see. This takes as long as N trainings, and the memory of all pixels, or of
    all features if the backbone is frozen; a stopped run resumes with the next part. Writes
    reports/suspects.html, .csv and .json.
    """
    from imageclf.params import load_params
    from imageclf.training.begin import runtime_of

    params = load_params()
    runtime = runtime_of(params)

    from rich.console import Console

    from imageclf.evaluation.suspects import draw_folds, load_labelled, out_of_fold
    from imageclf.evaluation.suspects_page import PAGE, TABLE, write_suspects
    from imageclf.system.progress import image_progress

    labelled = load_labelled(params, PREPARED)
    drawn = draw_folds(params, labelled, folds)
    console = Console(soft_wrap=True, highlight=False)
    images = params.train.epochs * sum(len(fold.train) for fold in drawn)
    with image_progress(console, images) as advance:
        probabilities = out_of_fold(params, labelled, drawn, runtime.device, advance, console.print)
    found = write_suspects(REPORTS, PREPARED, labelled, probabilities, folds)
    click.echo(
        f"{found['suspects']:,} of {found['images']:,} labels are disputed: {REPORTS / PAGE}, "
        f"{REPORTS / TABLE}"
    )
