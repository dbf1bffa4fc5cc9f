"""The places of artifacts in a project's own database, which MLflow records as absolute paths."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
ARTIFACTS = "mlartifacts"


def artifact_location(root: Path) -> str:
    """The place of the artifacts of a project, as a URI."""
    return (root / ARTIFACTS).as_uri()


def follow(root: Path, database: str) -> None:
    """Let the places in the database of a project that was moved or copied follow it.

    Without that a copy would write into the original, and a moved project into its old folder.

    Args:
        root: of the project.
        database: the address of its database.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be read or written.
    """
    from sqlalchemy import NullPool, create_engine

    with create_engine(database, poolclass=NullPool).begin() as store:
        found = store.exec_driver_sql("SELECT DISTINCT artifact_location FROM experiments")
        for former in _former_roots([location for (location,) in found], root):
            for before, now in ((former.as_uri(), root.as_uri()), (f"{former}", f"{root}")):
                for table, column in COLUMNS:
                    store.exec_driver_sql(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
                        f"WHERE substr({column}, 1, ?) = ?",
                        (now, len(before) + 1, len(before) + 1, f"{before}/"),
                    )


def _former_roots(locations: list[str], root: Path) -> list[Path]:
    """The folders in which the project made its experiments, without its present one."""
    former = {
        Path(url2pathname(urlsplit(location).path)).parent
        for location in locations
        if location.startswith("file:") and location.endswith(f"/{ARTIFACTS}")
    }
    return [folder for folder in former if not (folder.exists() and folder.samefile(root))]
