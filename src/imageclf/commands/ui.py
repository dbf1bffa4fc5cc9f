"""`imageclf ui`."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import click

from imageclf.commands.common import InProject, examples, interruptible
from imageclf.files import UserError

LOG = "ui.log"


@click.command(cls=InProject, epilog=examples("imageclf ui", "imageclf ui --port 5001"))
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def ui(port: int) -> None:
    """Compare the runs in the browser, in MLflow's pages.

    It prints the address of the runs of this project. They are served to this machine alone, until
    Ctrl-C or the end of the terminal. If MLFLOW_TRACKING_URI names a server, they are there.
    """
    from imageclf.params import load_params
    from imageclf.project.folder import PARAMS, project_root
    from imageclf.team.service import HOST, answers, await_ready, check_port, started
    from imageclf.tracking.connection import shown, tracking_uri
    from imageclf.tracking.view import runs_page

    root = project_root()
    uri = tracking_uri(root)
    is_server = uri.startswith("http")
    if not is_server:
        check_port(port, "make ui")
    page = runs_page(load_params(Path(PARAMS)).register_.experiment)
    if is_server:
        click.echo(f"compare the runs: {shown(uri).rstrip('/')}{page}")
        return
    url, log = f"http://{HOST}:{port}", root / ".imageclf" / LOG
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    settings = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    with (
        suppress(KeyboardInterrupt),
        interruptible(),
        started(command, log, cwd=root, env=settings) as process,
    ):
        await_ready(process, log, lambda: answers(f"{url}/health"))
        click.echo(f"compare the runs: {url}{page}")
        click.echo("to end it:        Ctrl-C")
        process.wait()
        raise UserError(f"MLflow ended by itself: {log} says why")
