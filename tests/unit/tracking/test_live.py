import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from helpers.clones import git
from helpers.descriptions import FINGERPRINT, described
from helpers.images import learnable_split
from helpers.live import CPU, FIGURES, IN_MLFLOW, the_run, train_badly, wait_for
from helpers.loopback import FileServer, Status, running
from helpers.params import make_params
from imageclf.drawing.plots import pairs, save_figure
from imageclf.files import UserError
from imageclf.tracking import live
from imageclf.tracking.journal import Journal, trained_here
from imageclf.tracking.live import LiveRun
from imageclf.tracking.messages import (
    End,
    FirstBatch,
    Message,
    Metrics,
    RunDescription,
    encode,
)
from imageclf.tracking.provenance import Provenance, this_machine
from imageclf.tracking.reporter import arriving, follow
from imageclf.training.preview import preview

DESCRIPTION = RunDescription(FINGERPRINT, "a run", "imageclf", {"seed": 1}, {}, Provenance(), 1000)
WAITS = "; `dvc repro` (the register stage) fills the gap\n"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the child, which gives way to all others, may take long to begin."""
    monkeypatch.setattr(live, "WAIT_S", 120.0)


@contextmanager
def begun() -> Iterator[LiveRun]:
    with LiveRun() as reporting:
        reporting.begin(described(), CPU, 0)
        yield reporting


def test_a_training_is_reported_while_it_goes_on(project: Path, capfd: Any) -> None:
    with begun() as reporting:
        reporting.log_epoch(1, FIGURES)
        wait_for(lambda: bool((run := the_run(project)) and run.data.metrics == IN_MLFLOW))
        assert the_run(project).info.status == "RUNNING"
        reporting.log_epoch(2, FIGURES | {"train_loss": 0.25})
    run = the_run(project)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mlp lr 0.003"
    assert run.data.metrics == IN_MLFLOW | {"train/loss": 0.25}
    assert run.data.params["model.hidden"] == "[256, 64]"
    assert run.data.tags["data.val"] == "2" * 12
    assert this_machine(CPU).tags().items() <= run.data.tags.items()
    assert capfd.readouterr() == ("", "")
    assert trained_here(FINGERPRINT)
    assert not trained_here("e" * 64)
    journal = Journal(FINGERPRINT)
    assert journal.record
    assert journal.record.description.origin == this_machine(CPU)
    first, second, end = journal.messages()
    assert [first.step, second.step, end.status] == [1, 2, "FINISHED"]
    assert not journal.is_training()


def test_a_training_that_never_began_is_not_told(project: Path, capfd: Any) -> None:
    with pytest.raises(UserError), LiveRun() as reporting:
        raise UserError("data/prepared is missing")
    assert reporting.child.returncode == -signal.SIGKILL
    assert the_run(project) is None
    assert capfd.readouterr() == ("", "")


def test_the_first_batch_is_shown_before_the_first_epoch_ends(project: Path) -> None:
    seen = preview(make_params(), learnable_split(40, seed=0), [*"abcd"], 4)
    with begun() as reporting:
        reporting.log_first_batch(vars(seen))
        wait_for(lambda: bool(list(project.glob("mlartifacts/*/artifacts/reports/*/*.png"))))
        assert the_run(project).info.status == "RUNNING"
    (picture,) = project.glob("mlartifacts/*/artifacts/reports/evaluation/first_batch.png")
    save_figure(pairs(**vars(seen)), project / "expected.png")
    assert picture.read_bytes() == (project / "expected.png").read_bytes()


@pytest.mark.parametrize(
    ("error", "status"),
    [(UserError("the loss became nan"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_an_exception_ends_the_run(project: Path, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), begun() as reporting:
        reporting.log_epoch(1, FIGURES)
        raise error
    run = the_run(project)
    assert (run.info.status, run.data.metrics) == (status, IN_MLFLOW)
    assert not trained_here(FINGERPRINT)
    assert Journal(FINGERPRINT).end().status == status


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_training_leaves_no_running_run(project: Path, number: signal.Signals) -> None:
    training = train_badly("time.sleep(60)", {})
    try:
        assert training.stdout
        assert training.stdout.readline() == "started\n"
        wait_for(lambda: bool((run := the_run(project)) and run.data.metrics == IN_MLFLOW))
        assert the_run(project).info.status == "RUNNING"
    finally:
        os.killpg(training.pid, number)  # as Ctrl-C in a terminal: the whole group
        training.communicate()
    wait_for(lambda: the_run(project).info.status == "KILLED")


@pytest.mark.slow
def test_a_training_killed_at_once_leaves_no_running_run(project: Path) -> None:
    training = train_badly("import os; os.kill(os.getpid(), 9)", {})
    training.communicate(timeout=60)
    assert training.returncode == -signal.SIGKILL
    wait_for(lambda: bool((run := the_run(project)) and run.info.status == "KILLED"))
    assert the_run(project).data.metrics == IN_MLFLOW


def timed_training(epochs: int = 20) -> tuple[float, float]:
    """The longest time that reporting an epoch took, and the time that the end took."""
    longest = 0.0
    with begun() as reporting:
        for number in range(1, epochs + 1):
            started = time.monotonic()
            reporting.log_epoch(number, FIGURES)
            longest = max(longest, time.monotonic() - started)
        started = time.monotonic()
    return longest, time.monotonic() - started


def test_a_refused_connection_holds_up_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    longest, _ = timed_training()
    assert longest < 1
    reason = "the tracking server http://127.0.0.1:9 does not answer (Connection refused)"
    assert capfd.readouterr() == ("", f"tracking waits: {reason}{WAITS}")
    assert trained_here(FINGERPRINT)


def test_a_refused_password_holds_up_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    with running(FileServer()) as server:
        server.faults = [Status(401)] * 99
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        longest, _ = timed_training()
        assert server.asked
    assert longest < 1
    error = capfd.readouterr().err
    assert error.startswith(f"tracking waits: the tracking server {server.url} refuses access")
    assert error.count("\n") == 1
    assert "secret" not in error


@pytest.mark.slow
def test_a_server_that_hangs_holds_up_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        longest, end = timed_training()
    assert longest < 1
    assert end < live.WAIT_S
    error = capfd.readouterr().err
    assert "does not answer (timed out)" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_trouble_is_told_once(project: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(live, "WAIT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with begun() as reporting:
            reporting.log_epoch(1, FIGURES)
            wait_for(lambda: "does not answer (timed out)" in capfd.readouterr().err)
    assert reporting.child.returncode == -signal.SIGKILL  # while it tried a second time
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_server_that_comes_back_gets_everything(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
    mlflow_server: Callable[..., subprocess.Popen[bytes]],
    free_port: int,
) -> None:
    def serve() -> subprocess.Popen[bytes]:
        store = f"sqlite:///{project}/mlflow.db"
        return mlflow_server(free_port, "server", "--backend-store-uri", store, "--workers", "1")

    server = serve()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    with begun() as reporting:
        reporting.log_epoch(1, FIGURES)
        wait_for(lambda: bool((run := the_run(project)) and run.data.metrics == IN_MLFLOW))
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        reporting.log_epoch(2, FIGURES)
        wait_for(lambda: "tracking waits" in capfd.readouterr().err)
        serve()
        reporting.log_epoch(3, FIGURES)
    run = the_run(project)
    assert run.info.status == "FINISHED"
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    history = client.get_metric_history(run.info.run_id, "val/loss")
    assert sorted(point.step for point in history) == [1, 2, 3]
    assert capfd.readouterr().err == ""


def test_a_full_pipe_holds_up_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(live, "WAIT_S", 0.5)
    longest = 0.0
    with begun() as reporting:
        reporting.child.send_signal(signal.SIGSTOP)
        for number in range(2000):
            started = time.monotonic()
            reporting.log_epoch(number, FIGURES)
            longest = max(longest, time.monotonic() - started)
    assert longest < 1
    assert reporting.child.returncode == -signal.SIGKILL
    assert capfd.readouterr().err == f"tracking waits: MLflow takes too long{WAITS}"


def test_a_child_that_dies_is_told(project: Path, capfd: Any) -> None:
    with begun() as reporting:
        reporting.child.kill()
        reporting.child.wait()
        reporting.log_epoch(1, FIGURES)
    reason = "the process that reports to MLflow ended with code -9"
    assert capfd.readouterr().err == f"tracking waits: {reason}{WAITS}"


def test_no_mlflow_no_failure(project: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    (project / "mlflow.py").write_text("raise ModuleNotFoundError('No module named mlflow')\n")
    monkeypatch.setenv("PYTHONPATH", str(project))
    timed_training(2)
    error = capfd.readouterr().err
    assert "needs a package that is not installed (No module named mlflow)" in error
    assert error.count("\n") == 1


def test_the_source_is_recorded_however_long_mlflow_takes_to_import(
    clones: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any
) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "mlflow.py").write_text("import time; time.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(slow), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(live, "WAIT_S", 3.0)

    def commit() -> object:
        record = Journal(FINGERPRINT).record
        return record and record.description.origin.commit

    with begun() as reporting:
        wait_for(lambda: bool(commit()))
        reporting.log_epoch(1, FIGURES)
    assert reporting.child.returncode == -signal.SIGKILL
    assert str(commit()) == git("rev-parse", "HEAD").strip()
    assert capfd.readouterr().err == f"tracking waits: MLflow takes too long{WAITS}"


def arrivals(*told: RunDescription | Message) -> Iterator[list[str]]:
    """Messages that arrive one after the other."""
    return ([encode(each)] for each in told)


class Reports:
    """Collects what is reported; fails at given items, counted from 1 over all reports."""

    def __init__(self, *failures: int) -> None:
        self.failures = failures
        self.count = 0
        self.reports: list[list[Message]] = []

    def __call__(self, description: RunDescription, items: Iterable[Message]) -> None:
        assert description == DESCRIPTION
        self.reports.append([])
        for item in items:
            self.count += 1
            if self.count in self.failures:
                raise UserError("it does not answer")
            self.reports[-1].append(item)


FIRST, SECOND, END = Metrics(1, FIGURES, 2000), Metrics(2, FIGURES, 3000), End("FINISHED", 4000)


def test_what_is_told_is_reported(project: Path) -> None:
    reports = Reports()
    follow(arrivals(DESCRIPTION, FIRST, SECOND, END), reports)
    assert reports.reports == [[FIRST, SECOND, END]]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_the_first_batch_is_drawn_after_the_points_unless_all_went_well(
    project: Path, status: str
) -> None:
    reports, picture, end = Reports(), FirstBatch("first_batch.npz"), End(status, 4000)
    together = [encode(each) for each in (picture, FIRST, SECOND, end)]
    follow(iter([[encode(DESCRIPTION)], together]), reports)
    drawn = [] if status == "FINISHED" else [picture]
    assert reports.reports == [[FIRST, SECOND, *drawn, end]]


def test_lines_are_taken_as_they_arrive(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"one\ntwo\nthr")
    lines = arriving(read)
    assert next(lines) == ["one", "two"]
    os.write(write, "ee\nvi\u00e9r".encode())
    assert next(lines) == ["three"]
    os.close(write)
    assert list(lines) == []  # a line that was torn has no end
    os.close(read)


def test_lines_that_just_end_tell_of_a_kill(project: Path) -> None:
    reports = Reports()
    follow(arrivals(DESCRIPTION, FIRST), reports)
    ((first, last),) = reports.reports
    assert first == FIRST
    assert isinstance(last, End)
    assert last.status == "KILLED"


def test_an_end_that_the_pipe_had_no_room_for_is_in_the_journal(project: Path) -> None:
    journal, reports = Journal(DESCRIPTION.fingerprint), Reports()
    for message in (FIRST, END):
        journal.say(message)
    follow(arrivals(DESCRIPTION, FIRST), reports)
    assert reports.reports == [[FIRST, END]]
    assert journal.messages() == [FIRST, END]


def test_no_line_at_all_reports_nothing(project: Path) -> None:
    reports = Reports()
    follow(iter([]), reports)
    assert reports.reports == []


def test_after_a_failure_all_is_reported_again_at_the_end(project: Path, capsys: Any) -> None:
    reports = Reports(2)
    follow(arrivals(DESCRIPTION, FIRST, SECOND, END), reports)
    assert reports.reports == [[FIRST], [FIRST, SECOND, END]]
    assert capsys.readouterr().err == f"tracking waits: it does not answer{WAITS}"


def test_a_second_failure_is_not_told_again(project: Path, capsys: Any) -> None:
    reports = Reports(1, 2)
    follow(arrivals(DESCRIPTION, FIRST, END), reports)
    assert reports.reports == [[], []]
    assert capsys.readouterr().err.count("\n") == 1


def test_the_run_of_an_experiment_has_its_name(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "gaudy-oboe")
    description = described()
    assert description.name == "gaudy-oboe · mlp lr 0.003"
    assert description.tags["DVC_EXP_NAME"] == "gaudy-oboe"
