"""The fetch stage as DVC runs it: a process of its own in the project's folder."""

import gzip
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.loopback import FileServer, Hold, running
from helpers.params import ROOT, changed
from helpers.real_data import REAL_DATA, needs

MNIST = REAL_DATA / "mnist"
STAGE = [sys.executable, str(ROOT / "stages/fetch.py")]


@pytest.fixture
def mirror():
    with running(FileServer()) as server:
        for path in MNIST.iterdir():
            server.files[f"/mnist/{path.name}"] = path.read_bytes()
        yield server


def environment(mirror=""):
    """Addresses beyond this machine meet a proxy that is not there; apt reads other variables."""
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    absent = "http://127.0.0.1:9"
    return kept | {
        "PYTHONPATH": str(ROOT / "src"),
        "HTTP_PROXY": absent,
        "HTTPS_PROXY": absent,
        "NO_PROXY": "127.0.0.1",
        "IMAGECLF_MIRROR": str(mirror),
    }


def write_params(folder, name):
    # JSON is YAML too.
    (folder / "params.yaml").write_text(json.dumps(changed(data__name=name)))


def run_stage(folder, name, env):
    write_params(folder, name)
    return subprocess.run(
        STAGE, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=200
    )


def assert_raw_is_as_described(raw):
    described = json.loads((raw / "source.json").read_text())["files"]
    found = {path.name: path for path in raw.iterdir() if path.name != "source.json"}
    assert {
        name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for name, path in found.items()
    } == described


def test_digits_need_no_network(tmp_path):
    result = run_stage(tmp_path, "digits", environment())
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == (
        "fetched Optical Recognition of Handwritten Digits: 2 files, 116.8 kB -> data/raw"
    )
    assert_raw_is_as_described(tmp_path / "data/raw")


def test_without_a_source_one_line_says_what_to_do(tmp_path):
    began = time.monotonic()
    result = run_stage(tmp_path, "mnist", environment(tmp_path / "nowhere"))
    assert time.monotonic() - began < 10
    assert result.returncode == 2
    assert result.stderr.startswith(
        f"error: no source gave MNIST: the mirror {tmp_path}/nowhere (there is no train-images-"
    )
    assert result.stderr.count("\n") == 1
    assert result.stderr.count("(the proxy: connection refused)") == 2
    assert "Set IMAGECLF_MIRROR to a folder or URL that holds train-images-idx3-ubyte.gz, " in (
        result.stderr
    )
    assert not (tmp_path / "data/raw").exists()


@needs("mnist")
def test_a_killed_fetch_asks_only_for_the_rest(tmp_path, mirror):
    name = "/mnist/train-images-idx3-ubyte.gz"
    size, half = len(mirror.files[name]), 5_000_000
    mirror.faults = [Hold(half)]
    write_params(tmp_path, "mnist")
    process = subprocess.Popen(
        STAGE, cwd=tmp_path, env=environment(mirror.url), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while part_size(tmp_path) < half and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert part_size(tmp_path) == half
    assert not (tmp_path / "data/raw").exists()

    result = run_stage(tmp_path, "mnist", environment(mirror.url))
    assert (result.returncode, result.stderr) == (0, "")
    assert mirror.asked[:2] == [(name, None), (name, f"bytes={half}-")]
    assert mirror.sent[name] == size
    assert_raw_is_as_described(tmp_path / "data/raw")
    unpacked = (tmp_path / "data/raw/train-images-idx3-ubyte").read_bytes()
    assert unpacked == gzip.decompress(mirror.files[name])
    assert list((tmp_path / ".downloads").iterdir()) == []


def part_size(folder):
    return sum(path.stat().st_size for path in folder.glob(".downloads/mnist/*.part"))


@needs("mnist")
@pytest.mark.parametrize(
    ("megabytes", "kind"),
    [(4, "URL"), (20, "URL"), (50, "folder")],
    ids=["while downloading", "while unpacking", "in the last file"],
)
def test_a_full_disk(tmp_path, mirror, megabytes, kind):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size={megabytes}m tmpfs {shlex.quote(str(disk))}"
    private = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*private, mount], capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    write_params(tmp_path, "mnist")
    script = (
        f"{mount} && cd {shlex.quote(str(disk))} && {shlex.join(STAGE)} --params ../params.yaml;"
        "code=$?; find . -type f; exit $code"
    )
    result = subprocess.run(
        [*private, script],
        env=environment(mirror.url if kind == "URL" else MNIST.parent),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert result.returncode == 2
    assert result.stderr == (
        "error: the disk is full: MNIST needs 109.9 MB while it is unpacked (55.0 MB to keep), "
        f"but {disk} has {megabytes * 1.048576:.1f} MB free; make room and try again\n"
    )
    assert "\n./" not in result.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="apt-get is not here"
)
def test_fashion_mnist_comes_from_debian(tmp_path):
    if Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("dataset-fashion-mnist is installed here")
    result = run_stage(tmp_path, "fashion_mnist", environment())
    if "Failed to fetch" in result.stderr:
        pytest.skip("the package archive cannot be reached")
    assert (result.returncode, result.stderr) == (0, "")
    assert "trying Debian's package dataset-fashion-mnist\n" in result.stdout
    assert_raw_is_as_described(tmp_path / "data/raw")
    assert list((tmp_path / ".downloads").iterdir()) == []
