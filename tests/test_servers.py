"""The project's own tracking server: with a password, behind PostgreSQL or sqlite."""

import configparser
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from helpers.ports import unused_port
from helpers.project import Project
from imageclf.files import UserError, read_json
from imageclf.team.tracking_server import postgres_programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RATES = ("0.01", "0.02", "0.03", "0.04")
LEFT = re.compile(rb"initdb|postgres|mlflow|uvicorn")


def has_postgres() -> bool:
    try:
        return postgres_programs(Path("no cluster")).is_dir()
    except UserError:
        return False


needs_postgres = pytest.mark.skipif(not has_postgres(), reason="needs PostgreSQL")


@dataclass
class Running:
    """`imageclf server` in a project's folder, started as a user would."""

    project: Project
    process: "subprocess.Popen[str]"
    said: list[str]

    @property
    def url(self) -> str:
        return self.said[1].rpartition("=")[2]

    def variables(self, password: str | None = None) -> dict[str, str]:
        """What leads to it, with the right password or another."""
        known = configparser.ConfigParser()
        known.read(self.project.folder / ".server/credentials")
        login = {name.upper(): value for name, value in known["mlflow"].items()}
        if password:
            login["MLFLOW_TRACKING_PASSWORD"] = password
        return {"MLFLOW_TRACKING_URI": self.url} | login

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def serve(project: Project, port: int, backend: str) -> Running:
    """Start one and read what it says once it answers."""
    process = subprocess.Popen(
        ["imageclf", "server", "--backend", backend, "--port", str(port)],
        executable=shutil.which("imageclf", path=project.environment["PATH"]),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    running = Running(project, process, [])
    for line in process.stdout:
        running.said.append(line.rstrip())
        if line.startswith("to end it") or "error" in line:
            break
    if running.said[-1] != "to end it:      Ctrl-C":
        running.stop()
        pytest.fail("\n".join(running.said))
    return running


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose data are prepared and committed."""
    project = Project(tmp_path_factory.mktemp("base"))
    project.set("train.epochs", "2")
    project.run("dvc", "repro", "transform")
    project.commit("prepared")
    return project


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """A folder that PostgreSQL's own user can reach, too."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def postgres(base: Project, public: Path) -> Iterator[Running]:
    project = base.copy(public / "server")
    project.folder.chmod(0o755)
    running = serve(project, unused_port(), "postgres")
    yield running
    running.stop()
    assert left_in(public) == []


def left_in(folder: Path) -> list[str]:
    """Servers that still work in a folder."""
    deadline, found = time.monotonic() + 10, ["?"]
    while found and time.monotonic() < deadline:
        found = [
            command.decode()
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if (command := read(path)) and LEFT.search(command) and str(folder).encode() in command
        ]
        time.sleep(0.1)
    return found


def read(path: Path) -> bytes:
    try:
        cwd = str((path.parent / "cwd").readlink()).encode()
        return path.read_bytes().replace(b"\0", b" ") + cwd
    except OSError:  # it ended meanwhile
        return b""


@pytest.fixture
def client(postgres: Running, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in postgres.variables().items():
        monkeypatch.setenv(name, value)
    return MlflowClient(postgres.url)


@needs_postgres
def test_the_pipeline_reports_to_a_server_with_a_password(
    base: Project, postgres: Running, client: Any, tmp_path: Path
) -> None:
    project = base.copy(tmp_path / "project")
    project.server = postgres.variables()
    project.repro()
    accuracy = read_json(project.folder / "reports/metrics.json")["accuracy"]
    version = client.get_model_version_by_alias("digits", "champion")
    run = client.get_run(version.run_id)
    assert (run.info.status, run.data.metrics["test/accuracy"]) == ("FINISHED", accuracy)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    kept = client.download_artifacts(run.info.run_id, "reports/metrics.json", str(tmp_path))
    assert read_json(Path(kept))["accuracy"] == accuracy
    assert not (project.folder / "mlflow.db").exists()
    assert not (project.folder / "mlartifacts").exists()


@needs_postgres
def test_a_wrong_password_costs_a_line_and_no_work(
    base: Project, postgres: Running, client: Any, tmp_path: Path
) -> None:
    project = base.copy(tmp_path / "project")
    project.set("train.learning_rate", "0.02")
    project.server = postgres.variables("guessed-wrong")
    lines = project.run("dvc", "repro", check=False).splitlines()
    refused = f"the tracking server {postgres.url} refuses access: set MLFLOW_TRACKING_USERNAME"
    (waits,) = [line for line in lines if "tracking waits" in line]
    (error,) = [line for line in lines if line.startswith("error: ")]
    # A slow machine finds out only that it waits: the training needs a second.
    assert waits.startswith((f"tracking waits: {refused}", "tracking waits: MLflow takes too long"))
    assert error.startswith(f"error: {refused}")
    assert "ERROR: failed to reproduce 'register'" in "\n".join(lines)
    assert not any("guessed-wrong" in line or "Traceback" in line for line in lines)
    before = project.md5s()
    project.server = postgres.variables()
    assert project.repro() == ["register"]
    assert project.md5s() == before
    assert "0.02" in {run.data.params["train.learning_rate"] for run in runs(client)}


@needs_postgres
def test_a_runner_with_a_wrong_password_does_not_begin(
    base: Project, postgres: Running, tmp_path: Path
) -> None:
    project = base.copy(tmp_path / "project")
    project.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    project.server = postgres.variables("guessed-wrong")
    said = project.run("imageclf", "runner", check=False)
    assert re.fullmatch(r"error: the tracking server \S+ refuses access: set [^\n]*\n", said)


def runs(client: Any) -> list[Any]:
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments))


@needs_postgres
def test_four_trainings_at_once_register_four_versions(
    base: Project, postgres: Running, client: Any, tmp_path: Path
) -> None:
    projects = [base.copy(tmp_path / rate) for rate in RATES]
    for project, rate in zip(projects, RATES, strict=True):
        project.server = postgres.variables()
        project.set("train.learning_rate", rate)
        project.set("register.name", "together")
        project.set("register.experiment", "together")
    with ThreadPoolExecutor(len(projects)) as pool:
        list(pool.map(Project.repro, projects))  # which fails with what one of them said
    found = client.search_model_versions("name = 'together'")
    assert sorted(int(version.version) for version in found) == [1, 2, 3, 4]
    made = {client.get_run(version.run_id).data.params["train.learning_rate"] for version in found}
    assert made == set(RATES)
    assert len({version.tags["fingerprint"] for version in found}) == 4


def test_a_server_starts_once_stops_cleanly_and_keeps_its_password(
    base: Project, tmp_path: Path
) -> None:
    project = base.copy(tmp_path / "project")
    first = serve(project, unused_port(), "sqlite")
    credentials = project.folder / ".server/credentials"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    password = first.variables()["MLFLOW_TRACKING_PASSWORD"]
    assert "it runs already" in project.run("imageclf", "server")
    assert project.run("git", "status", "--porcelain") == ""
    first.process.kill()
    first.stop()
    assert left_in(project.folder) == []
    second = serve(project, unused_port(), "sqlite")
    assert second.variables()["MLFLOW_TRACKING_PASSWORD"] == password
    second.process.terminate()
    assert second.process.wait() == 0
    second.stop()
    assert left_in(project.folder) == []
    said = [*first.said, *second.said, (project.folder / ".server/server.log").read_text()]
    assert not any(password in line for line in said)
