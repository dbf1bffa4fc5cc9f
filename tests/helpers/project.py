"""A copy of the project in a folder of its own, to run commands in as a user would."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from helpers.params import ROOT, params_text
from imageclf.files import read_yaml

BIN = Path(sys.executable).parent
STAGES = ("fetch", "weights", "transform", "embed", "train", "evaluate", "export", "register")


class Project:
    """A copy of the project under git, with a fresh tracking store and an empty cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: dict[str, str] = {}  # variables that lead to servers
        self.started: list[subprocess.Popen[bytes]] = []
        names = self.run("git", "ls-files", "--cached", "--others", "--exclude-standard", at=ROOT)
        for name in names.splitlines():
            if (ROOT / name).is_file() and name != "dvc.lock":  # of a run on other parameters
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        (folder / "params.yaml").write_text(params_text())
        self.run("git", "init", "--quiet")
        self.run("imageclf", "use", "digits_mlp")
        self.commit("start")

    def copy(self, folder: Path) -> "Project":
        """The same with its cache, as if all of it had been done in another folder."""
        copy = Project.__new__(Project)
        copy.folder, copy.server, copy.started = folder, dict(self.server), []
        shutil.copytree(self.folder, folder, symlinks=True)
        return copy

    @property
    def environment(self) -> dict[str, str]:
        """This process's, with the environment's programs first and no other server configured."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        site_cache = str(self.folder / ".dvc/tmp/site")
        path = f"{BIN}:{os.environ['PATH']}"
        return kept | self.server | {"PATH": path, "DVC_SITE_CACHE_DIR": site_cache}

    def run(self, *command: str, at: Path | None = None, check: bool = True) -> str:
        """The output of a command; a failure shows it."""
        environment = self.environment
        done = subprocess.run(
            command,
            check=False,
            cwd=at or self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own, its output thrown away."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def kill_started(self) -> None:
        """End what ``start`` started and still runs."""
        for process in self.started:
            if process.poll() is None:
                kill(process)

    def commit(self, message: str) -> None:
        """Everything that git does not ignore."""
        self.run("git", "add", "--all")
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        self.run("git", *identity, "commit", "--quiet", "--message", message)

    def repro(self, *arguments: str) -> list[str]:
        """The stages that `dvc repro` really ran."""
        output = self.run("dvc", "repro", *arguments)
        return [stage for stage in STAGES if f"Running stage '{stage}'" in output]

    def set(self, path: str, value: str) -> None:
        """Change a parameter as a user would: in the file, by hand."""
        section, key = path.split(".")
        lines = (self.folder / "params.yaml").read_text().splitlines()
        inside = False
        for number, line in enumerate(lines):
            inside = line.startswith(f"{section}:") or (inside and line.startswith((" ", "#")))
            if inside and line.strip().startswith(f"{key}:"):
                lines[number] = f"  {key}: {value}"
        (self.folder / "params.yaml").write_text("\n".join(lines) + "\n")

    def md5s(self) -> dict[str, str]:
        """The md5 of every out in dvc.lock."""
        return md5s(self.folder)

    def forget(self, stage: str) -> None:
        """Let DVC know of no run of a stage: it runs it again, and not the ones after it."""
        lock = self.folder / "dvc.lock"
        entry = re.compile(rf"^  {stage}:\n(?:    .*\n)*", re.MULTILINE)
        lock.write_text(entry.sub("", lock.read_text()))
        shutil.rmtree(self.folder / ".dvc/cache/runs", ignore_errors=True)

    def client(self) -> Any:
        """A client of the project's own tracking store, as it is now.

        It reads a copy, because MLflow keeps its connections, also to a file that was deleted.
        """
        from mlflow import MlflowClient

        copy = Path(tempfile.mkdtemp(dir=self.folder / ".dvc/tmp")) / "mlflow.db"
        with (
            closing(sqlite3.connect(self.folder / "mlflow.db")) as store,
            closing(sqlite3.connect(copy)) as target,
        ):
            store.backup(target)
        return MlflowClient(f"sqlite:///{copy}")

    def runs(self) -> list[Any]:
        """Every run in the project's own tracking store."""
        client = self.client()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(experiments))


def md5s(folder: Path) -> dict[str, str]:
    """The md5 of every out in a folder's dvc.lock."""
    stages: dict[str, Any] = read_yaml(folder / "dvc.lock")["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that ``Project.start`` started, and all its group, without a warning."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def working_on(project: Project, stage: str) -> bool:
    """Whether a process runs the stage's script in the project's folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            folder = (entry / "cwd").resolve()
        except OSError:  # it ended meanwhile
            continue
        if folder == project.folder.resolve() and f"stages/{stage}.py".encode() in command:
            return True
    return False
