"""`imageclf`: what a user types."""

from contextlib import suppress
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
        "imageclf use                  list the recipes",
        "imageclf use digits_mlp       put one into params.yaml",
        "imageclf models efficientnet  networks of that name, and their pretrained weights",
        "imageclf show                 what the network will see of the images",
        "imageclf rate                 which learning rate to begin with",
        "dvc repro                     train, evaluate, export, register",
        "imageclf summary              what came out, and where it is",
        "imageclf suspects             labels that are probably wrong",
        "imageclf predict photo.jpg    the classes of your own images",
        "imageclf runs                 every training, and what it reached",
        "imageclf compare              the workspace against the champion, on one page",
        "imageclf ui                   compare the runs in the browser",
        "imageclf trace MODEL          what a model was made from",
        "imageclf rebuild MODEL        make it again elsewhere, and compare",
        "imageclf mend                 after a kill, when `dvc repro` does not go on",
        "imageclf verify               hash every file of the pipeline and of the cache",
        "imageclf push                 what was computed here, for other machines",
    ),
)
@click.pass_context
def main(context: click.Context) -> None:
    """Choose a recipe, train it with `dvc repro`, and use what came out."""
    collect_garbage_rarely()
    escape_what_the_terminal_lacks()
    name_the_user(project_root() / HOME)
    if context.invoked_subcommand != "mend":
        with suppress(UserError):  # the command tells it, if it needs what is not mended
            for line in mend_project():
                click.echo(line, err=True)


OF_ONE = (
    use,
    models,
    show,
    rate,
    run,
    summary,
    suspects,
    predict,
    runs,
    ui,
    sync,
    compare,
    promote,
    trace,
    rebuild,
    verify,
    mend,
)
OF_SEVERAL = (server, push, pull, runner)  # people or machines
for command in (*OF_ONE, *OF_SEVERAL):
    main.add_command(command)
