"""`imageclf push` and `imageclf pull`."""

import click

from imageclf.commands.common import InProject, examples, interruptible
from imageclf.commands.runs import MODEL
from imageclf.commands.sync import sync


@click.command(cls=InProject, epilog=examples("imageclf push", "imageclf pull"))
def push() -> None:
    """Push what this machine computed, for other machines.

    Files and DVC's run cache go to DVC's default remote, the journal to git's.
    """
    from imageclf.team.sharing import push as give

    with interruptible():
        give(click.echo)


@click.command(cls=InProject, epilog=examples("git pull", "imageclf pull", "dvc repro"))
@click.pass_context
def pull(context: click.Context) -> None:
    """Pull what other machines computed, and write it to MLflow.

    It pulls the files in dvc.lock, so run `git pull` first, and the journals, and then syncs.
    """
    from imageclf.team.sharing import pull as get

    with interruptible():
        get(click.echo)
    if MODEL.exists():
        context.invoke(sync, everything=False)
