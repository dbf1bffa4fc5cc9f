"""Tracking servers that fail in the middle of a training, and a queue that finds no store yet."""

import random
import subprocess
from pathlib import Path

import pytest

from tracking_trouble import EPOCHS, NAMESPACE, Baseline, endure, prepare, queue

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    """A project whose pipeline ran once, undisturbed."""
    return prepare(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_server_is_killed(baseline: Baseline, seed: int) -> None:
    assert endure(baseline, "killed", random.Random(seed).randrange(1, EPOCHS)) == []


def test_a_servers_disk_is_full(baseline: Baseline) -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a small disk (unshare --mount)")
    assert endure(baseline, "disk full", EPOCHS // 2) == []


def test_a_queue_that_makes_the_store(tmp_path: Path) -> None:
    assert queue(tmp_path) == []
