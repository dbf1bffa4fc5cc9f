"""MLflow's own servers on loopback, to be started, killed and started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import requests

LONGEST_S = 90


def start_mlflow(
    log: Path, port: int, *arguments: str, prefix: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start ``mlflow ...`` in a process group of its own and wait until it answers."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that nobody needs here
    }
    command = [*prefix, sys.executable, "-m", "mlflow", *arguments]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | environment,
        )
    deadline = time.monotonic() + LONGEST_S
    while not answers(f"http://127.0.0.1:{port}/health"):
        if process.poll() is not None or time.monotonic() > deadline:
            stop(process)
            raise RuntimeError(f"{' '.join(command)} does not answer:\n{log.read_text()}")
        time.sleep(0.2)
    return process


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it started, with kill -9."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
