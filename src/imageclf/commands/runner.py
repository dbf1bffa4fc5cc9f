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
    help="Seconds without a sign of life after which other runners take over from this one.",
)
def runner(lease: int) -> None:
    """Pull, reproduce and push, as one of several machines.

    It trains what the branch says on this machine, and commits dvc.lock to the branch.

    Only what is needed is downloaded from DVC's default remote, and what any machine trained is
    not trained again. Of several runners with the same model one trains it, and the others wait
    for its result. After an error, run it again.
    """
    from imageclf.team.runner import run

    with interruptible():
        succeeded = run(lease, click.echo)
    sys.exit(0 if succeeded else 1)
