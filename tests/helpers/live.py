"""Trainings that report live, in processes that may be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient

from helpers.params import ROOT

CPU = torch.device("cpu")
FIGURES = {"train_loss": 0.5, "val_loss": 0.6}
IN_MLFLOW = {"train/loss": 0.5, "val/loss": 0.6}


def the_run(folder: Path) -> Any:
    """The only run in the folder's store, or None."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("imageclf")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    assert len(runs) <= 1
    return runs[0] if runs else None


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def train_badly(script: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A process of its own group that starts a LiveRun and then does what the script says."""
    start = (
        "import time, torch\n"
        "from helpers.descriptions import described\n"
        "from helpers.live import CPU, FIGURES\n"
        "from imageclf.tracking.live import LiveRun\n"
        "with LiveRun() as reporting:\n"
        "    reporting.begin(described(), CPU, 0)\n"
        "    reporting.log_epoch(1, FIGURES)\n"
        "    print('started', flush=True)\n"
    )
    paths = [ROOT / "tests", ROOT / "src"]
    return subprocess.Popen(
        [sys.executable, "-c", start + f"    {script}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))} | environment,
    )
