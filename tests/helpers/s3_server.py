"""An S3 endpoint on loopback: moto's server, which keeps its buckets in memory."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from helpers.ports import unused_port

BUCKET = "bucket"


@contextmanager
def running_s3(folder: Path) -> Iterator[int]:
    """Start one with a bucket, whose log is in ``folder``; its port."""
    port = unused_port()
    command = (sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port))
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))
    try:
        deadline = time.monotonic() + 60
        while not _makes_bucket(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"moto does not answer:\n{(folder / 's3.log').read_text()}")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def _makes_bucket(port: int) -> bool:
    try:
        return requests.put(f"http://127.0.0.1:{port}/{BUCKET}", timeout=10).ok
    except requests.RequestException:
        return False
