"""What the contenders need: the environments of the peers and a project with the prepared data.

All of it lies in .bench_cache/, which git ignores; remove the folder to start afresh.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".bench_cache"
PROJECT = CACHE / "project"
# What decides the work of an epoch in params.yaml; the peers' environments know no GPU.
PART_4 = {
    "data": {"name": "fashion_mnist"},
    "transform": {"image_size": 28, "val_fraction": 0.1},
    "model": {
        "name": "mlp",
        "hidden": [256, 64],
        "activation": "relu",
        "dropout": 0.0,
        "output": "log_softmax",
        "normalize": "standard",
    },
    "train": {"batch_size": 64, "loss": "nll", "optimizer": "adam", "learning_rate": 0.003},
    "runtime": {"device": "cpu", "threads": "auto"},
}


def prepare_project() -> None:
    """Make a project afresh that trains Part 4: no runs, no checkpoints, Fashion-MNIST prepared.

    The IDX files are kept from one benchmark to the next; the first one takes them from data/raw
    if the pipeline has fetched them there.
    """
    shutil.rmtree(PROJECT, ignore_errors=True)
    PROJECT.mkdir(parents=True)
    (CACHE / "data").mkdir(exist_ok=True)
    (PROJECT / "data").symlink_to(CACHE / "data")
    for name in ("dvc.yaml", "src", "stages"):
        (PROJECT / name).symlink_to(ROOT / name)
    _write_params()
    if not (PROJECT / "data/raw/source.json").exists():
        _run_stage("fetch")
    for stage in ("transform", "weights", "embed"):
        _run_stage(stage)
    # Where torchvision.datasets.FashionMNIST looks for its files.
    (PROJECT / "FashionMNIST").mkdir()
    (PROJECT / "FashionMNIST/raw").symlink_to(CACHE / "data/raw")


def prepare_interpreter(requirements: str | None) -> Path:
    """The Python of a peer's environment, made or renewed if its pinned file has changed.

    Args:
        requirements: NAME of requirements-NAME.txt; none is the product's own environment.
    """
    if requirements is None:
        return Path(sys.executable)
    pinned = Path(__file__).with_name(f"requirements-{requirements}.txt")
    folder = CACHE / requirements
    python, installed = folder / "bin/python", folder / "installed.txt"
    if not (installed.exists() and installed.read_bytes() == pinned.read_bytes()):
        click.echo(f"installing {pinned.name} into {folder.relative_to(ROOT)}", err=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(pinned)])
        shutil.copyfile(pinned, installed)
    return python


def versions(python: Path, packages: Sequence[str]) -> str:
    """Names and versions of the packages that an interpreter would import."""
    program = (
        "import sys; from importlib.metadata import version\n"
        "print(*(f'{name} {version(name)}' for name in sys.argv[1:]), sep=', ')"
    )
    command = [str(python), "-c", program, *packages]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _write_params() -> None:
    yaml = YAML(typ="safe")
    params = yaml.load(ROOT / "params.yaml")
    for section, values in PART_4.items():
        params[section] |= values
    yaml.dump(params, PROJECT / "params.yaml")


def _run_stage(name: str) -> None:
    mirror = {"IMAGECLF_MIRROR": str(ROOT / "data/raw")}
    _run(
        [sys.executable, f"stages/{name}.py"],
        cwd=PROJECT,
        env={**mirror, **os.environ, "PYTHONPATH": "src"},
    )


def _run(command: Sequence[str], **settings: object) -> None:
    ended = subprocess.run(command, stdout=sys.stderr, check=False, **settings)
    if ended.returncode:
        raise click.ClickException(f"{' '.join(command)} ended with {ended.returncode}")
