"""`imageclf server`."""

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from imageclf.commands.common import InProject, examples, interruptible
from imageclf.files import UserError

if TYPE_CHECKING:
    from imageclf.team.tracking_server import Backend

DATABASES = {"sqlite": ".server/mlflow.db", "postgres": "PostgreSQL in .server/postgres"}


@click.command(
    cls=InProject,
    epilog=examples("imageclf server", "imageclf server --backend postgres --port 5001"),
)
@click.option(
    "--backend",
    type=click.Choice(list(DATABASES)),
    default="sqlite",
    show_default=True,
    help="The database of the runs. PostgreSQL must be installed; the project has its own cluster.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def server(backend: "Backend", port: int) -> None:
    """Run a tracking server with a password.

    It is for several people or machines, and listens on this machine's loopback. The password is
    drawn at the first start. The server also serves the files of the runs. Ctrl-C ends it.
    """
    from imageclf.project.folder import project_root
    from imageclf.team.tracking_server import running_server

    with (
        suppress(KeyboardInterrupt),
        interruptible(),
        running_server(project_root(), backend, port) as running,
    ):
        click.echo(f"MLflow answers: {running.url}, from {DATABASES[running.backend]}")
        click.echo(f"to use it:      export MLFLOW_TRACKING_URI={running.url}")
        place = running.credentials.relative_to(project_root())
        click.echo(f"user, password: {place}; MLflow reads them where this puts them:")
        click.echo(f"                install -D -m 600 {place} ~/.mlflow/credentials")
        click.echo("to fill it:     imageclf sync --all")
        click.echo("to end it:      Ctrl-C" if running.process else "it runs already")
        if running.process is None:
            return
        running.process.wait()
        raise UserError("MLflow ended by itself: .server/server.log says why")
