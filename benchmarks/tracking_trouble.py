"""Make the tracking server misbehave in the middle of trainings, and see that nothing is lost.

    python benchmarks/tracking_trouble.py --kills 10 --queues 5

A copy of the project trains on the built-in digits and reports to a real `mlflow server` on
loopback, which dies, is slow, refuses, or loses its disk at a random epoch. The md5s in dvc.lock
have to be those of an undisturbed training, `dvc repro` may fail in register alone, and when the
trouble is over, `dvc repro` has to leave the whole history in MLflow, each point once. The password
in the server's address must be found nowhere. Then three queued experiments run at once where
there is no tracking store yet.
"""

import csv
import random
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.loopback import Proxy, running
from helpers.mlflow_server import start_mlflow, stop
from helpers.ports import unused_port
from helpers.project import Project

EPOCHS = 200
USER, PASSWORD = "me", secrets.token_hex(8)
WAITS = "tracking waits: "
TIMES = ("seconds", "images_per_second")  # told live, and in no file that DVC keeps
RATES = (0.001, 0.002, 0.004)
DELAY_S = 3.0  # of each answer of a slow server
LONGEST_S = 300
# A disk of its own for a server: full when it is full, and gone with the server.
SMALL_DISK = 'mount -t tmpfs -o size=16m tmpfs "$1" && cp "$2" "$1" && shift 2 && exec "$@"'
NAMESPACE = ("unshare", "--map-root-user", "--mount")


class Tracking:
    """A tracking server of its own for a project, behind a proxy that asks for a password."""

    def __init__(self, project: Project, folder: Path, migrated: Path, proxy: Proxy) -> None:
        self.project, self.folder, self.proxy = project, folder, proxy
        self.database = folder / "mlflow.db"
        self.artifacts = folder / "artifacts"
        self._migrated = migrated
        proxy.user, proxy.password = USER, PASSWORD
        project.server = {"MLFLOW_TRACKING_URI": proxy.address(USER, PASSWORD)}
        shutil.copy(migrated, self.database)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.proxy.upstream}"

    def start(self, small_disk: bool = False) -> None:
        disk = ("sh", "-c", SMALL_DISK, "sh", str(self.folder), str(self._migrated))
        self.process = start_mlflow(
            self.folder.with_suffix(".log"),
            self.proxy.upstream,
            *("server", "--workers", "1", "--backend-store-uri", f"sqlite:///{self.database}"),
            *("--artifacts-destination", str(self.artifacts)),
            prefix=(*NAMESPACE, *disk) if small_disk else (),
        )

    def kill(self) -> None:
        stop(self.process)

    def seen(self, path: Path) -> Path:
        """A path as the server sees it, which may have a disk of its own."""
        return Path(f"/proc/{self.process.pid}/root", path.relative_to("/"))


@dataclass(frozen=True)
class Trouble:
    """Something that happens to a server while a training goes on, and what mends it.

    Attributes:
        strike, mend: do it, and undo it.
        waits: lines "tracking waits" that the training may print.
        register_fails: whether `dvc repro` can do nothing until it is mended.
        small_disk: the server needs a disk of its own.
    """

    strike: Callable[[Tracking], None]
    mend: Callable[[Tracking], None]
    waits: tuple[int, ...] = (1,)
    register_fails: bool = True
    small_disk: bool = False


def answer(status: int, body: bytes) -> Callable[[Tracking], None]:
    """The proxy answers everything itself."""
    return lambda tracking: setattr(tracking.proxy, "answer", (status, body))


def answer_again(tracking: Tracking) -> None:
    tracking.proxy.answer = None


def slow_down(tracking: Tracking) -> None:
    tracking.proxy.delay = DELAY_S / 2


def speed_up(tracking: Tracking) -> None:
    tracking.proxy.delay = 0


def change_password(tracking: Tracking) -> None:
    tracking.proxy.password = PASSWORD[::-1]


def tell_password(tracking: Tracking) -> None:
    tracking.project.server = {
        "MLFLOW_TRACKING_URI": tracking.proxy.url,
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD[::-1],
    }


def fill_disk(tracking: Tracking) -> None:
    try:
        with tracking.seen(tracking.folder / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    except OSError:
        return
    raise AssertionError("the disk never gets full")


def empty_disk(tracking: Tracking) -> None:
    tracking.seen(tracking.folder / "filler").unlink()


def lose_artifacts(tracking: Tracking) -> None:
    shutil.rmtree(tracking.artifacts, ignore_errors=True)  # there may be none yet
    tracking.artifacts.write_text("a file where the server wants a folder")


def find_artifacts(tracking: Tracking) -> None:
    tracking.artifacts.unlink()


def lose_database(tracking: Tracking) -> None:
    tracking.database.unlink()


def restart(tracking: Tracking) -> None:
    tracking.kill()
    tracking.start()


TROUBLES = {
    "killed": Trouble(Tracking.kill, Tracking.start),
    "slow": Trouble(slow_down, speed_up, waits=(0, 1), register_fails=False),
    "error 500": Trouble(answer(500, b"it broke"), answer_again),
    "no MLflow": Trouble(answer(200, b"<html>Welcome to our hotel</html>"), answer_again),
    "wrong password": Trouble(change_password, tell_password),
    "disk full": Trouble(fill_disk, empty_disk, small_disk=True),
    # One line where it strikes before the first batch was shown.
    "no artifacts": Trouble(lose_artifacts, find_artifacts, waits=(0, 1)),
    "no database": Trouble(lose_database, restart),
}


@dataclass(frozen=True)
class Baseline:
    """A project whose pipeline ran once, its md5s, and an empty tracking store to copy."""

    project: Project
    md5s: dict[str, str]
    migrated: Path


def prepare(folder: Path) -> Baseline:
    """Run the pipeline undisturbed, in a copy of the project with a tracking store of its own."""
    from mlflow import MlflowClient

    migrated = folder / "mlflow.db"
    MlflowClient(f"sqlite:///{migrated}").search_experiments()
    project = Project(folder / "project")
    project.set("train.epochs", f"{EPOCHS}")
    project.run("dvc", "repro", "embed")
    project.commit("prepared")
    project.repro()
    return Baseline(project, project.md5s(), migrated)


def forget_training(project: Project) -> None:
    """Let DVC know of no training; the stages after it still come from its cache."""
    project.run("git", "checkout", "--quiet", "dvc.lock")
    for entry in [*project.folder.glob(".dvc/cache/runs/*/*/*")]:
        if "stages/train.py" in entry.read_text().partition("deps:")[0]:
            shutil.rmtree(entry.parent)


@contextmanager
def tracking_of(baseline: Baseline, small_disk: bool) -> Iterator[Tracking]:
    port = unused_port()
    with running(Proxy(port)) as proxy, tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "server"
        store.mkdir()
        tracking = Tracking(baseline.project, store, baseline.migrated, proxy)
        tracking.start(small_disk)
        try:
            yield tracking
        finally:
            tracking.kill()


def repro(project: Project, epoch: int, strike: Callable[[], None]) -> tuple[int, list[str]]:
    """`dvc repro`, and what to do when it has trained so many epochs; its code and its lines."""
    lines = []
    with subprocess.Popen(
        ("dvc", "repro"),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.strip().startswith(f"{epoch}/{EPOCHS}"):
                strike()
                break
        else:
            raise RuntimeError(f"no epoch {epoch}:\n" + "\n".join(lines))
        lines += process.stdout.read().splitlines()
    return process.returncode, lines


def endure(baseline: Baseline, name: str, epoch: int) -> list[str]:
    """Let trouble come at the end of an epoch, and go; what was not as it should be."""
    project, trouble = baseline.project, TROUBLES[name]
    forget_training(project)
    said, wrong = [], []
    with tracking_of(baseline, trouble.small_disk) as tracking:

        def strike() -> None:
            trouble.strike(tracking)
            wrong.extend(f"the password is in the command {found}" for found in exposing())

        code, lines = repro(project, epoch, strike)
        said += lines
        waits = [line for line in lines if WAITS in line]
        if len(waits) not in trouble.waits:
            wrong.append(f"{len(waits)} lines that tracking waits")
        errors = [line for line in lines if line.startswith("error: ")]
        failed = re.findall(r"failed to reproduce '(\w+)'", "\n".join(lines))
        if trouble.register_fails and (len(errors), failed, code == 0) != (1, ["register"], False):
            wrong.append(f"{failed} failed with {len(errors)} lines that say why")
        if any("Traceback" in line for line in lines):
            wrong.append("a traceback")
        if project.md5s() != baseline.md5s:
            wrong.append("OTHER MD5S")
        trouble.mend(tracking)
        said += project.run("dvc", "repro").splitlines()
        wrong += [*missing(project, tracking), *leaks(tracking, said)]
    click.echo(f"{name} after epoch {epoch}: {'; '.join(wrong) or 'nothing is lost'}")
    for line in said if wrong else [*waits, *errors]:
        if f"/{EPOCHS} " not in line:
            click.echo(f"    {line}")
    return wrong


def missing(project: Project, tracking: Tracking) -> Iterator[str]:
    """What MLflow does not hold once, or holds wrongly, of a finished training."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking.address)
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs: list[Any] = list(client.search_runs(experiments))
    if [run.info.status for run in runs] != ["FINISHED"]:
        yield f"the runs are {[run.info.status for run in runs]}"
        return
    (run,) = runs
    histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    with (project.folder / "reports/history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if lacking := {*rows[0], *TIMES} - {"epoch"} - set(histories):
        yield f"there is no {lacking}"
    for key, points in histories.items():
        steps = sorted(point.step for point in points)
        if steps != ([0] if key.startswith("test_") else [*range(1, EPOCHS + 1)]):
            yield f"{key} stands at {steps}"
        if key in rows[0]:
            wanted = {int(row["epoch"]): float(row[key]) for row in rows}
            if {point.step: point.value for point in points} != wanted:
                yield f"{key} is not what history.csv says"
    files = {file.path for file in client.list_artifacts(run.info.run_id, "reports")}
    if "reports/history.csv" not in files or "reports/evaluation" not in files:
        yield f"the artifacts are {files}"
    if client.get_model_version_by_alias("digits", "champion").run_id != run.info.run_id:
        yield "the champion is of another run"


def exposing() -> Iterator[str]:
    """Running commands whose words hold the password."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if PASSWORD.encode() in command:
            yield command.replace(b"\0", b" ").decode()


def leaks(tracking: Tracking, said: list[str]) -> Iterator[str]:
    """Where the password, or what a request says of it, was printed or written."""
    words = [PASSWORD, PASSWORD[::-1]]
    words += [b64encode(f"{USER}:{word}".encode()).decode() for word in words]
    for line in said:
        if any(word in line for word in words):
            yield f"the password was printed: {line}"
    folders = (tracking.project.folder, tracking.seen(tracking.folder))
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if any(word.encode() in content for word in words):
            yield f"the password is in {path}"


def queue(folder: Path) -> list[str]:
    """Three queued experiments at once, before there is a tracking store; what went wrong."""
    project = Project(folder)
    project.run("dvc", "repro", "embed")
    project.commit("prepared")
    for rate in RATES:
        project.run("dvc", "exp", "run", "--queue", "-S", f"train.learning_rate={rate}")
    wrong = [] if not (folder / "mlflow.db").exists() else ["there is a tracking store already"]
    project.run("dvc", "queue", "start", "--jobs", f"{len(RATES)}")
    status = wait_until(project, lambda status: not re.search("Queued|Running", status))
    if status.count("Success") != len(RATES):
        wrong.append(status)
    project.run("dvc", "queue", "stop")
    wait_until(project, lambda status: "0 active, 0 idle" in status)
    wanted = {row["Experiment"]: float(row["train.learning_rate"]) for row in experiments(project)}
    runs = project.runs()
    found = {
        run.data.tags["DVC_EXP_NAME"]: float(run.data.params["train.learning_rate"]) for run in runs
    }
    if found != wanted or sorted(found.values()) != [*RATES] or len(runs) != len(RATES):
        wrong.append(f"{len(runs)} runs, {found} instead of {wanted}")
    if {run.info.status for run in runs} != {"FINISHED"}:
        wrong.append(f"the runs are {[run.info.status for run in runs]}")
    click.echo(f"three queued experiments: {'; '.join(wrong) or f'three runs, {found}'}")
    return wrong


def wait_until(project: Project, done: Callable[[str], bool]) -> str:
    """What `dvc queue status` says when it is done."""
    deadline = time.monotonic() + LONGEST_S
    while not done(status := project.run("dvc", "queue", "status")):
        if time.monotonic() > deadline:
            project.run("dvc", "queue", "stop", "--kill")
            raise TimeoutError(status)
        time.sleep(1)
    return status


def experiments(project: Project) -> list[dict[str, str]]:
    """The rows of `dvc exp show` that are experiments."""
    table = project.run("dvc", "exp", "show", "--csv").splitlines()
    start = next(number for number, line in enumerate(table) if line.startswith("Experiment,"))
    return [row for row in csv.DictReader(table[start:]) if row["typ"].startswith("branch_")]


@click.command(help=__doc__.split("\n", 1)[0])
@click.option("--kills", type=click.IntRange(min=0), default=10, show_default=True)
@click.option("--queues", type=click.IntRange(min=0), default=5, show_default=True)
@click.option("--seed", default=1, show_default=True, help="Draws the epochs.")
def main(kills: int, queues: int, seed: int) -> None:
    draw = random.Random(seed)
    names = [*["killed"] * kills, *(name for name in TROUBLES if name != "killed")]
    wrong = []
    # MLflow's process outlives the training that it reports, and may still write a file.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        baseline = prepare(Path(folder))
        for name in names:
            wrong += endure(baseline, name, draw.randrange(1, EPOCHS))
    for _ in range(queues):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            wrong += queue(Path(folder))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
