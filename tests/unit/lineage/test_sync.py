import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from helpers.descriptions import FINGERPRINT, described, epoch
from helpers.images import learnable_split
from helpers.live import the_run, train_badly, wait_for
from helpers.params import make_params
from helpers.tracked import FinishedTraining
from imageclf.cli import main
from imageclf.files import UserError
from imageclf.lineage.sync import Summary, sync
from imageclf.tracking.journal import Journal
from imageclf.tracking.messages import End
from imageclf.tracking.runs import end_abandoned, report
from imageclf.training.preview import preview


@pytest.fixture
def files(project: Path, onnx_file: Path) -> FinishedTraining:
    return FinishedTraining(project, onnx_file)


def failed_training() -> None:
    journal = Journal(FINGERPRINT)
    with journal.training(described(), 0):
        journal.say(epoch(1))
        journal.say(End("FAILED", 2000))


def test_a_failed_training_comes_back(files: FinishedTraining) -> None:
    failed_training()
    assert sync(everything=True, watch=iter) == Summary(updated=[described().name])
    (run,) = files.runs()
    assert (run.info.status, run.info.end_time) == ("FAILED", 2000)
    assert files.history("train/loss") == [(1, 1.0, 1001)]
    assert sync(everything=True, watch=iter) == Summary(agreed=1)


def test_a_failed_training_comes_back_with_its_first_batch(files: FinishedTraining) -> None:
    failed_training()
    seen = preview(make_params(), learnable_split(40, seed=0), [*"abcd"], 4)
    np.savez(Journal(FINGERPRINT).first_batch, allow_pickle=False, **vars(seen))
    sync(everything=True, watch=iter)
    (run,) = files.runs()
    (picture,) = files.client.list_artifacts(run.info.run_id, "reports/evaluation")
    assert picture.path.endswith("first_batch.png")


def test_a_training_that_goes_on_is_left_alone(files: FinishedTraining) -> None:
    with Journal(FINGERPRINT).training(described(), 0):
        report(described(), [epoch(1)])
        assert sync(everything=True, watch=iter) == Summary()
        assert files.runs()[0].info.status == "RUNNING"


def test_without_all_the_abandoned_end_though_nothing_was_trained(files: FinishedTraining) -> None:
    report(described(), [epoch(1)])
    with Journal(FINGERPRINT).training(described(), 0):
        pass
    with pytest.raises(UserError, match="nothing was trained here yet"):
        sync(everything=False, watch=iter)
    assert files.runs()[0].info.status == "KILLED"


def test_the_command_says_what_it_did(files: FinishedTraining) -> None:
    failed_training()
    result = CliRunner().invoke(main, ["sync", "--all"])
    lines = [f"up to date now: {described().name}", "0 runs in agreement, 1 brought up to date"]
    assert result.output.splitlines() == lines
    result = CliRunner().invoke(main, ["sync", "--all"])
    assert result.output == "1 run in agreement, 0 brought up to date\n"


def test_a_server_that_is_away_is_one_line(files: FinishedTraining, monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result = CliRunner().invoke(main, ["sync"])
    assert result.exit_code == 2
    reason = "the tracking server http://127.0.0.1:9 does not answer (Connection refused)"
    assert result.output == f"error: {reason}\n"


@pytest.mark.slow
def test_a_training_whose_machine_lost_power_is_ended(files: FinishedTraining) -> None:
    training = train_badly("print(reporting.child.pid, flush=True); time.sleep(60)", {})
    try:
        assert training.stdout
        assert training.stdout.readline() == "started\n"
        child = int(training.stdout.readline())
        wait_for(lambda: bool((run := the_run(files.folder)) and run.data.metrics))
        assert end_abandoned() == []
        os.kill(child, signal.SIGKILL)
    finally:
        os.killpg(training.pid, signal.SIGKILL)
        training.communicate()
    assert the_run(files.folder).info.status == "RUNNING"
    assert end_abandoned() == [described().name]
    assert the_run(files.folder).info.status == "KILLED"


def test_a_bad_journal_is_skipped_and_named(files: FinishedTraining) -> None:
    failed_training()
    bad = Path(".imageclf/trained") / ("e" * 64)
    bad.mkdir()
    (bad / "origin.json").write_text("{}")
    unparsed = Journal("d" * 64)
    description = replace(described(), fingerprint="d" * 64, tags={})
    texts = {"dvc.yaml": "", "params.yaml": "- 1", "dvc.lock": "stages: {}"}
    unparsed.register(description, texts, False, 1000)
    result = CliRunner().invoke(main, ["sync", "--all"])
    assert result.exit_code == 0, result.output
    first, second, third, last = result.output.splitlines()
    assert first == f"up to date now: {described().name}"
    assert second.startswith("skipped: the training eeeeeeee: origin.json: 'description'")
    assert third.startswith("skipped: the training dddddddd: params.yaml is no file of parameters")
    assert last == "0 runs in agreement, 1 brought up to date, 2 skipped"
    listed = CliRunner().invoke(main, ["runs"])
    assert listed.exit_code == 0
    assert "ffffffff" in listed.stdout
    assert listed.stderr.startswith("skipped: the training eeeeeeee: origin.json")
