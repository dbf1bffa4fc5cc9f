"""The project's tracking server: MLflow with a password, which also serves the artifacts.

Its files are in ``.server/``, which git and DVC ignore:

    credentials        user and password, drawn once, in the format of MLflow's clients
    auth.ini, auth.db  MLflow's settings for its users, and the users
    mlflow.db          the runs, or
    postgres/          a PostgreSQL cluster with the runs
    artifacts/         the files of the runs
    *.log              the output of the programs
    running.json       the server's address and backend, while it runs
    lock               held while it runs
"""

import configparser
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from imageclf.files import UserError, atomic_folder, atomic_writer, write_json, write_text
from imageclf.system.child import STOP_S
from imageclf.team.service import (
    HOST,
    answers,
    await_ready,
    check_port,
    last_line,
    started,
)

FOLDER = Path(".server")
LOGIN = "[mlflow]\nmlflow_tracking_username = {user}\nmlflow_tracking_password = {password}\n"
USER = "imageclf"
AUTH = "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///auth.db\n"
# Debian does not put PostgreSQL's programs on the path, and has this user for them.
DEBIAN = Path("/usr/lib/postgresql")
POSTGRES = "postgres"
RUNNING = "running.json"

Backend = Literal["sqlite", "postgres"]


@dataclass(frozen=True)
class Server:
    """A server, with the file of its user and password; ``process`` is None if it ran already."""

    url: str
    backend: Backend
    credentials: Path
    process: "subprocess.Popen[bytes] | None"


@contextmanager
def running_server(root: Path, backend: Backend, port: int) -> Iterator[Server]:
    """Run the project's tracking server on loopback while the block runs.

    If it runs already, that server is used, and ``backend`` and ``port`` are ignored.

    Raises:
        UserError: the port is taken, or something that it needs is missing.
    """
    from filelock import FileLock, Timeout

    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        held = None
    if held is None:
        yield _running_already(folder)
        return
    with held:
        (folder / RUNNING).unlink(missing_ok=True)
        check_port(port, "make server")
        database = _database(folder, backend)
        write_text(folder / ".gitignore", "*\n")
        credentials = draw_credentials(folder)
        login = _login(credentials)
        write_text(folder / "auth.ini", AUTH)
        with database as uri, _mlflow(folder, uri, port, login) as process:
            url = f"http://{HOST}:{port}"
            write_json(folder / RUNNING, {"url": url, "backend": backend})
            yield Server(url, backend, credentials, process)


def _running_already(folder: Path) -> Server:
    try:
        known = json.loads((folder / RUNNING).read_text())
    except FileNotFoundError:
        raise UserError("another `imageclf server` is starting here: wait for it") from None
    return Server(**known, credentials=folder / "credentials", process=None)


def draw_credentials(folder: Path) -> Path:
    """The file with user and password, made if it is missing, readable by its owner only."""
    path = folder / "credentials"
    if path.exists():
        return path
    if (folder / "auth.db").exists():
        raise UserError(f"{path} is gone: bring it back, or remove auth.db beside it")
    with atomic_writer(path) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(LOGIN.format(user=USER, password=secrets.token_urlsafe(16)).encode())
    return path


def _login(credentials: Path) -> list[str]:
    """User and password."""
    known = configparser.RawConfigParser()
    try:
        known.read(credentials)
        login = [known["mlflow"][f"mlflow_tracking_{each}"] for each in ("username", "password")]
    except (configparser.Error, KeyError, UnicodeDecodeError):
        login = [""]
    if not all(login):
        advice = "bring it back, or remove it and auth.db beside it"
        raise UserError(f"{credentials} does not hold user and password: {advice}")
    return login


@contextmanager
def _mlflow(
    folder: Path, uri: str, port: int, login: Sequence[str]
) -> "Iterator[subprocess.Popen[bytes]]":
    """MLflow's server: one worker, since several would race to make the database of users."""
    user, password = login
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", uri, "--artifacts-destination", "./artifacts"),
    ]
    others = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    settings = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder.absolute() / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": user,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    log = folder / "server.log"
    with started(command, log, cwd=folder, env=others | settings) as process:
        await_ready(process, log, lambda: answers(f"http://{HOST}:{port}/health"))
        yield process


def _database(folder: Path, backend: Backend) -> AbstractContextManager[str]:
    """Run the database, and yield its address; missing programs are reported at the call."""
    if backend == "sqlite":
        return nullcontext("sqlite:///mlflow.db")
    return _postgres(folder, postgres_programs(folder / "postgres"))


@contextmanager
def _postgres(folder: Path, programs: Path) -> Iterator[str]:
    """A PostgreSQL cluster behind a socket for its owner only.

    PostgreSQL refuses to run as root, so root starts it as Debian's user for it.
    """
    data, log = folder.absolute() / "postgres", folder / "postgres.log"
    user = POSTGRES if os.geteuid() == 0 else None
    if not data.exists():
        with atomic_folder(data) as fresh:
            _give(fresh, user)
            access = ("--auth-local", "trust", "--auth-host", "reject", "--username", USER)
            command = [str(programs / "initdb"), "--pgdata", str(fresh), *access]
            with started([*command, "--encoding", "UTF8", "--locale", "C"], log, user=user) as made:
                if made.wait():
                    raise UserError(f"PostgreSQL cannot make its cluster: {last_line(log)}")
    _await_end(data / "postmaster.pid")
    with TemporaryDirectory(prefix=f"{USER}-") as place:  # short, as a socket's path must be
        _give(Path(place), user)
        command = [str(programs / "postgres"), "-D", str(data)]
        settings = ["-k", place, "-c", "listen_addresses="]
        with started([*command, *settings], log, user=user) as process:
            ready = [str(programs / "pg_isready"), "--quiet", "--host", place, "--username", USER]
            await_ready(process, log, lambda: subprocess.run(ready, check=False).returncode == 0)  # noqa: S603
            yield f"postgresql://{USER}@/postgres?host={place}"


def _await_end(pid_file: Path) -> None:
    """Wait for an earlier server to end, which its guard may be killing."""
    deadline = time.monotonic() + STOP_S
    # After a crash, a process of another user may have its number.
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:
            os.kill(int(pid_file.read_text().split()[0]), 0)
            time.sleep(0.1)


def postgres_programs(cluster: Path) -> Path:
    """The folder of PostgreSQL's programs: those on the path, or else Debian's newest.

    If the cluster exists, their version is the one that made it: no other version can read it.

    Raises:
        UserError: they are not installed, or not in that version.
    """
    on_path = shutil.which("initdb")
    debian = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = [*([Path(on_path)] if on_path else []), *reversed(debian)]
    if not found:
        raise UserError("PostgreSQL is not installed: there is no initdb (Debian: postgresql)")
    if (cluster / "PG_VERSION").exists():
        version = (cluster / "PG_VERSION").read_text().strip()
        found = [initdb for initdb in found if f" {version}." in _version(initdb)]
        if not found:
            missing = f"PostgreSQL {version}, which is not installed (Debian: postgresql-{version})"
            raise UserError(f"{cluster} was made by {missing}")
    return found[0].resolve().parent


def _version(program: Path) -> str:
    """Its version, such as `initdb (PostgreSQL) 17.5 (Debian 17.5-1)`."""
    asked = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    return asked.stdout


def _give(folder: Path, user: str | None) -> None:
    if user:
        try:
            shutil.chown(folder, user, user)
        except LookupError:
            raise UserError(
                f"PostgreSQL does not run as root, and there is no user {user}"
            ) from None
