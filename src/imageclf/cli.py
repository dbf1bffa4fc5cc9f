"""`imageclf`: what a user types."""

from contextlib import suppress
from itertools import chain
from typing import Any

import click

from imageclf.commands.common import complain, examples
from imageclf.commands.compare import compare
from imageclf.commands.mend import mend
from imageclf.commands.models import models
from imageclf.commands.predict import predict
from imageclf.commands.promote import promote
from imageclf.commands.rate import rate
from imageclf.commands.rebuild import rebuild
from imageclf.commands.run import run
from imageclf.commands.runner import runner
from imageclf.commands.runs import runs
from imageclf.commands.server import server
from imageclf.commands.sharing import pull, push
from imageclf.commands.show import show
from imageclf.commands.summary import summary
from imageclf.commands.suspects import suspects
from imageclf.commands.sync import sync
from imageclf.commands.trace import trace
from imageclf.commands.ui import ui
from imageclf.commands.use import use
from imageclf.commands.verify import verify
from imageclf.files import UserError, file_errors_told
from imageclf.project.folder import HOME, project_root
from imageclf.project.mend import mend as mend_project
from imageclf.system.machine import collect_garbage_rarely, name_the_user
from imageclf.text import escape_what_the_terminal_lacks


class _Commands(click.Group):
    """A group that shows a UserError as one line, with exit code 2."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by purpose."""
        width = max(map(len, self.list_commands(ctx)))
        for title, commands in GROUPS.items():
            with formatter.section(title):
                room = formatter.width - width - 4
                rows = [
                    (f"{each.name:<{width}}", each.get_short_help_str(room)) for each in commands
                ]
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with file_errors_told():
                return super().invoke(ctx)
        except UserError as error:
            complain(error)
            ctx.exit(2)
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "imageclf use digits_mlp                  put a recipe into params.yaml",
        "imageclf run                             train, evaluate, export, register",
        "imageclf predict photo.jpg               the classes of your own images",
        "imageclf trace fashion-mnist@champion    what a model was made from",
    ),
)
@click.version_option(package_name="imageclf", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Choose a recipe, train it, and use what came out.

    MODEL names a model everywhere alike: see `imageclf trace --help`.
    """
    collect_garbage_rarely()
    escape_what_the_terminal_lacks()
    name_the_user(project_root() / HOME)
    if context.invoked_subcommand != "mend":
        with suppress(UserError):  # the command tells it, if it needs what is not mended
            for line in mend_project():
                click.echo(line, err=True)


# The commands by purpose, in the order in which a newcomer needs them.
GROUPS = {
    "Train": (use, models, show, rate, run, summary),
    "Use and judge a model": (predict, suspects, runs, ui, compare, promote),
    "What a model was made from": (trace, rebuild, verify, sync, mend),
    "Several people or machines": (server, push, pull, runner),
}
for command in chain.from_iterable(GROUPS.values()):
    main.add_command(command)
