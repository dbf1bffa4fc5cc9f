"""`imageclf sync`."""

from functools import partial

import click

from imageclf.commands.common import examples
from imageclf.text import printable


@click.command(epilog=examples("imageclf sync", "rm mlflow.db && imageclf sync --all"))
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Every model and failed training in the journal, a git commit or a DVC experiment.",
)
def sync(everything: bool) -> None:
    """Make MLflow agree with the files.

    It writes runs, metrics by epoch, artifacts and model versions.
    Without --all, the model of the workspace. Runs that agree already are not written again. Runs
    that are RUNNING although nothing trains them are ended.
    """
    from rich.console import Console
    from rich.progress import track

    from imageclf.lineage.sync import sync as bring_up_to_date

    console = Console(stderr=True)
    show = partial(
        track, console=console, transient=True, description="", disable=not console.is_terminal
    )
    done = bring_up_to_date(everything, show)
    for name in done.ended:
        click.echo(f"ended, because nothing trains it: {printable(name)}")
    for name in done.updated:
        click.echo(f"up to date now: {printable(name)}")
    for reason in done.skipped:
        click.echo(f"skipped: {printable(reason)}")
    agreed = f"{done.agreed} run{'s' * (done.agreed != 1)} in agreement"
    skipped = f", {len(done.skipped)} skipped" if done.skipped else ""
    click.echo(f"{agreed}, {len(done.updated)} brought up to date{skipped}")
