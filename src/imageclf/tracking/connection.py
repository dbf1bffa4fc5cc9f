"""The connection to MLflow's store: its address, its lock, and its errors in plain words."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from imageclf.files import UserError, atomic_path
from imageclf.project.folder import project_root
from imageclf.tracking.places import follow

# Settings that MLflow reads when it is imported.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it may contain a password
}
# Settings that MLflow reads at each request; the timeout is in seconds.
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
HASTY = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
LOCK_WAIT_S = 120
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# An address with user and password, without characters at which libraries would split it
# differently: they might print a piece of the password as the port.
LOGIN = re.compile(r"(https?|postgresql|mysql|mssql)[^:]*://[^\s/?#\\\[\]]*@[^@]*", re.IGNORECASE)


class TrackingError(UserError):
    """MLflow cannot be read or written; the message gives the reason, without credentials."""


class AccessError(TrackingError):
    """MLflow's server refuses the user or the password."""


def tracking_uri(root: Path) -> str:
    """``MLFLOW_TRACKING_URI``, or else the address of a database in the project's root.

    Raises:
        TrackingError: its password might be printed.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or own_database(root)
    if "@" in uri and not uri.startswith("sqlite") and not LOGIN.fullmatch(uri):
        raise TrackingError(
            "MLFLOW_TRACKING_URI cannot be read: write special characters of the password as %XX, "
            "or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )
    return uri


def own_database(root: Path) -> str:
    """The address of the database in a project's root, with an absolute path."""
    return _address(root / "mlflow.db")


def _address(database: Path) -> str:
    """The address of a database's file, with what an address may not have escaped.

    With the driver's name in it MLflow does not make a folder of the escaped name.
    """
    escaped = f"{database}".replace("%", "%25").replace("?", "%3F")
    return f"sqlite{'' if escaped == f'{database}' else '+pysqlite'}:///{escaped}"


def database_file(uri: str) -> Path | None:
    """The file of a local database; None for any other store."""
    from sqlalchemy import make_url

    database = make_url(uri).database if uri.startswith("sqlite") else None
    return Path(database) if database else None


class Store:
    """A tracking store or server, with its registry of models."""

    def __init__(self, root: Path, uri: str) -> None:
        self.root, self.uri = root, uri
        self.is_database = uri.startswith(DATABASES)
        self._file = database_file(uri)
        is_new = self._file and not self._file.exists()
        if is_new and uri == own_database(root) and not (root / "dvc.yaml").exists():
            raise TrackingError(
                "there is no dvc.yaml here: run this in the folder of the project, or set "
                "MLFLOW_TRACKING_URI"
            )
        with self.lock():
            if self._file and not self._file.exists():
                _make_database(self._file)
            self.client: Any = _client(uri)
            if uri == own_database(root):
                follow(root, uri)

    def lock(self) -> AbstractContextManager[object]:
        """Keep other processes of this machine from a local database.

        Concurrent migrations of a new one would fail, and concurrent searches for a run that does
        not exist would create it twice.
        """
        from filelock import FileLock

        return FileLock(f"{self._file}.lock", timeout=LOCK_WAIT_S) if self._file else nullcontext()

    def fluent(self) -> Any:
        """The module mlflow, set to this store, for what the client cannot do."""
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        return mlflow

    def experiments(self) -> list[Any]:
        """Every experiment that is not deleted."""
        return list(_pages(lambda token: self.client.search_experiments(page_token=token)))

    def runs(self, wanted: str) -> Iterator[Any]:
        """The runs in all experiments that match an MLflow filter and are not deleted."""
        places = [each.experiment_id for each in self.experiments()]
        return _pages(lambda token: self.client.search_runs(places, wanted, page_token=token))


def _client(uri: str) -> Any:
    import mlflow
    from sqlalchemy import NullPool, create_engine

    if uri.startswith(DATABASES):
        if "%" in str(mlflow.__file__):  # MLflow gives it to a parser that takes % for a reference
            raise TrackingError(
                "MLflow is installed in a folder with % in its path, and can use no database from "
                "there: move the project"
            )
        # MLflow would retry a broken one for 100 seconds.
        create_engine(uri, poolclass=NullPool).connect().close()
    return mlflow.MlflowClient(uri)


def _make_database(path: Path) -> None:
    """Make an empty database, whole or not at all: interrupted migrations cannot be repaired."""
    with atomic_path(path) as temporary:
        for left in temporary.parent.glob(f"{temporary.name}*"):
            left.unlink()
        _client(_address(temporary))


def _pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    """The items on all pages of an MLflow search."""
    token = None
    while True:
        page = ask(token)
        yield from page
        if not (token := page.token):
            return


@contextmanager
def opened_store(settings: dict[str, str]) -> Iterator[Store]:
    """The configured store; its errors become a TrackingError without credentials."""
    for name, value in (QUIET | settings).items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    root = project_root()
    uri = tracking_uri(root)
    try:
        yield Store(root, uri)
    except Exception as error:
        reason = _plain_words(error, shown(uri))
        if reason is None:
            raise
        raise (AccessError if _is_refused(error) else TrackingError)(reason) from None


def check_access() -> None:
    """Check before long work that the tracking server, if it answers, admits the user.

    Raises:
        AccessError: it does not.
    """
    if not tracking_uri(project_root()).startswith("http"):
        return
    try:
        with opened_store(PATIENT) as store:
            store.client.search_experiments(max_results=1)
    except AccessError:
        raise
    except TrackingError:
        return  # a server that does not answer now may do so later


def _is_refused(error: Exception) -> bool:
    return getattr(error, "error_code", None) in {"UNAUTHENTICATED", "PERMISSION_DENIED"}


def _plain_words(error: Exception, store: str) -> str | None:
    """The reason of an error of MLflow or its libraries, in one line; None for any other error."""
    if isinstance(error, ImportError):
        return f"MLflow at {store} needs a package that is not installed ({error})"
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    if not isinstance(error, MlflowException | SQLAlchemyError | OSError):
        return None
    chain: list[BaseException] = [error]
    while below := chain[-1].__cause__ or chain[-1].__context__ or _wrapped(chain[-1]):
        chain.append(below)
    cause = getattr(chain[-1], "strerror", None) or chain[-1]
    if _is_refused(error):
        needed = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        return f"the tracking server {store} refuses access: set {needed}"
    if any(isinstance(link, RequestException) for link in chain):
        return f"the tracking server {store} does not answer ({cause})"
    if any(isinstance(link, SQLAlchemyError) for link in chain):
        return f"the tracking database {store} cannot be used ({cause})"
    return f"MLflow at {store}: {shown(' '.join(str(error).split()))[:300]}"


def _wrapped(error: BaseException) -> BaseException | None:
    """The error in the arguments of another one, where urllib3 puts the cause."""
    last = error.args[-1] if error.args else None
    return last if isinstance(last, BaseException) else None


def shown(text: str) -> str:
    """The text without the user, password and query of its addresses, which may be secret."""
    return re.sub(r"(?<=//)\S*@|\?\S*", "", text)
