"""Shared by the stage scripts: parameters are checked, errors are one line, exit code 2."""

import sys
from collections.abc import Callable
from pathlib import Path

import click

from imageclf.files import UserError, file_errors_told
from imageclf.params import Params, load_params
from imageclf.project.processes import under_dvc
from imageclf.system.machine import collect_garbage_rarely
from imageclf.text import escape_what_the_terminal_lacks


def stage(run: Callable[[Params], None]) -> click.Command:
    """Make a Click command of a function that takes the checked parameters."""

    @click.command(help=run.__doc__)
    @click.option(
        "--params",
        "path",
        type=click.Path(path_type=Path),
        default=Path("params.yaml"),
        show_default=True,
        help="The file of parameters.",
    )
    def command(path: Path) -> None:
        collect_garbage_rarely()
        escape_what_the_terminal_lacks()
        try:
            with file_errors_told(), under_dvc():
                run(load_params(path))
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)

    return command
