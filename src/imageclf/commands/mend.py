"""`imageclf mend`."""

import click

from imageclf.commands.common import InProject, examples
from imageclf.project.git import check_repository
from imageclf.project.mend import mend as mend_project


@click.command(cls=InProject, epilog=examples("imageclf mend && dvc repro"))
def mend() -> None:
    """Mend what a killed `dvc` left, so that `dvc repro` goes on.

    `make run` and every other command of imageclf do it too. What it cannot mend, it names: a
    project without git, and parameters that this version does not know or misses.
    """
    from imageclf.params import load_params

    for line in mend_project() or ["there is nothing to mend"]:
        click.echo(line)
    check_repository()
    load_params()
