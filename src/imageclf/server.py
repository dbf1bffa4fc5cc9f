"""A tracking server of the project's own: MLflow that asks for a password and hands on artifacts.

All it needs lies in ``.server/``, which git and DVC ignore:

    credentials        user and password, drawn once, as MLflow's clients read them
    auth.ini, auth.db  MLflow's settings of its users, and the users
    mlflow.db          the runs, or
    postgres/          a PostgreSQL cluster of its own that holds them
    artifacts/         the files of the runs
    *.log              what the programs say
    url                where it answers
    lock               held while it runs
"""

import configparser
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from imageclf.files import UserError, atomic_folder, atomic_writer, write_text
from imageclf.guard import STOP_S, guarded

FOLDER = Path(".server")
HOST = "127.0.0.1"
START_S = 120.0
PRIVATE = 0o077  # umask
LOGIN = "[mlflow]\nmlflow_tracking_username = {user}\nmlflow_tracking_password = {password}\n"
USER = "imageclf"
AUTH = "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///auth.db\n"
# Debian puts PostgreSQL's programs on nobody's path, and has this user for them.
DEBIAN = Path("/usr/lib/postgresql")
POSTGRES = "postgres"

Backend = Literal["sqlite", "postgres"]


@dataclass(frozen=True)
class Server:
    """A server.

    Attributes:
        url: where it answers.
        credentials: the file with user and password.
        process: None where the server of the project ran already.
    """

    url: str
    credentials: Path
    process: "subprocess.Popen[bytes] | None"


@contextmanager
def running_server(root: Path, backend: Backend, port: int) -> Iterator[Server]:
    """Run the project's tracking server on loopback while the block runs.

    Args:
        root: the project's folder.
        backend: what holds the runs.
        port: to listen on.

    Raises:
        UserError: the port is taken, or something that it needs is missing.
    """
    from filelock import FileLock, Timeout

    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield Server((folder / "url").read_text(), folder / "credentials", None)
        return
    with lock:
        _check_port(port)
        url = f"http://{HOST}:{port}"
        write_text(folder / "url", url)
        write_text(folder / "auth.ini", AUTH)
        credentials = _credentials(folder)
        with _database(folder, backend) as uri, _mlflow(folder, uri, port, credentials) as process:
            yield Server(url, credentials, process)


def _check_port(port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"port {port}: {reason}; `make server PORT={port + 1}`?") from None


def _credentials(folder: Path) -> Path:
    """The file with user and password, drawn where there are none, for its owner's eyes alone."""
    path = folder / "credentials"
    if path.exists():
        return path
    if (folder / "auth.db").exists():
        raise UserError(f"{path} is gone: bring it back, or remove auth.db beside it")
    with atomic_writer(path) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(LOGIN.format(user=USER, password=secrets.token_urlsafe(16)).encode())
    return path


@contextmanager
def _mlflow(
    folder: Path, uri: str, port: int, credentials: Path
) -> "Iterator[subprocess.Popen[bytes]]":
    """MLflow's server: one process, since several would race to make the database of users."""
    known = configparser.RawConfigParser()
    known.read(credentials)
    user, password = known["mlflow"].values()
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
    with _started(command, log, cwd=folder, env=others | settings) as process:
        _await(process, log, lambda: _answers(f"http://{HOST}:{port}/health"))
        yield process


def _answers(url: str) -> bool:
    import requests

    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def _database(folder: Path, backend: Backend) -> AbstractContextManager[str]:
    return nullcontext("sqlite:///mlflow.db") if backend == "sqlite" else _postgres(folder)


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL cluster that is reached by a socket which is its owner's alone.

    It refuses to run as root, who starts it as Debian's user for it.
    """
    data, log = folder.absolute() / "postgres", folder / "postgres.log"
    user = POSTGRES if os.geteuid() == 0 else None
    if not data.exists():
        with atomic_folder(data) as fresh:
            _give(fresh, user)
            access = ("--auth-local", "trust", "--auth-host", "reject", "--username", USER)
            command = [postgres_program("initdb"), "--pgdata", str(fresh), *access]
            with _started(
                [*command, "--encoding", "UTF8", "--locale", "C"], log, user=user
            ) as made:
                if made.wait():
                    raise UserError(f"PostgreSQL cannot make its cluster: {_last_line(log)}")
    _await_end(data / "postmaster.pid")
    with TemporaryDirectory(prefix=f"{USER}-") as place:  # a longer path is too long for a socket
        _give(Path(place), user)
        command = [
            postgres_program("postgres"),
            "-D",
            str(data),
            "-k",
            place,
            "-c",
            "listen_addresses=",
        ]
        with _started(command, log, user=user) as process:
            ready = [postgres_program("pg_isready"), "--quiet", "--host", place, "--username", USER]
            _await(process, log, lambda: subprocess.run(ready, check=False).returncode == 0)  # noqa: S603
            yield f"postgresql://{USER}@/postgres?host={place}"


def _await_end(pid_file: Path) -> None:
    """Give a server whose guard has just killed it the time to be gone."""
    deadline = time.monotonic() + STOP_S
    with suppress(FileNotFoundError, ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(int(pid_file.read_text().split()[0]), 0)
            time.sleep(0.1)


def postgres_program(name: str) -> str:
    """Where one of PostgreSQL's programs is: on the path, or else Debian's newest.

    Raises:
        UserError: nowhere.
    """
    versions = sorted(DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name))
    found = shutil.which(name) or next(
        (str(path / name) for path in reversed(versions) if (path / name).exists()), None
    )
    if found is None:
        raise UserError(f"PostgreSQL is not installed: there is no {name} (Debian: postgresql)")
    return found


def _give(folder: Path, user: str | None) -> None:
    if user:
        try:
            shutil.chown(folder, user, user)
        except LookupError:
            raise UserError(
                f"PostgreSQL does not run as root, and there is no user {user}"
            ) from None


@contextmanager
def _started(
    command: list[str], log: Path, cwd: Path = Path("/"), **settings: object
) -> "Iterator[subprocess.Popen[bytes]]":
    """A program that writes to a log, and files that are for its owner's eyes alone."""
    with (
        log.open("ab") as output,
        guarded(
            command, cwd=cwd, stdout=output, stderr=output, umask=PRIVATE, **settings
        ) as process,
    ):
        yield process


def _await(process: "subprocess.Popen[bytes]", log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise UserError(f"{log.stem} does not start: {_last_line(log)} ({log} tells all)")
        time.sleep(0.1)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it says nothing"
