"""`imageclf runner`."""

import sys

import click

from imageclf.commands.common import InProject, examples, interruptible


@click.command(cls=InProject, epilog=examples("imageclf runner", "imageclf runner --lease 60"))
@click.option(
    "--lease",
    type=click.IntRange(50, 24 * 3600),
    default=300,
    show_default=True,
    help="Seconds after which other runners take over from this one if it gives no sign of life.",
)
def runner(lease: int) -> None:
    """Do a runner's part: pull, reproduce, push.

    It trains what the branch says on this machine, and commits dvc.lock to the branch.

    Only what is needed is downloaded from DVC's default remote; what was trained anywhere already
    is not trained again. Of several runners with the same model to train one does, and the others
    wait for its result. Type it again after any trouble.
    """
    from imageclf.team.runner import run

    with interruptible():
        succeeded = run(lease, click.echo)
    sys.exit(0 if succeeded else 1)
