"""What each recipe reaches: accuracy over several seeds, time and memory of its train stage.

    python benchmarks/recipes.py fashion_part4 --seeds 5
    python benchmarks/recipes.py cats_dogs_cnn --seeds 3 --source $IMAGECLF_TEST_DATA/cats_dogs

Runs the real stage scripts (transform to train, evaluate) in a temporary folder, once per seed; the
seed draws the val split, the weights and the order of the batches. Prints mean and standard
deviation over the seeds, and the medians of wall-clock seconds and peak memory of the train stage.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd

from imageclf.files import read_json
from imageclf.recipes import find_recipe, use_recipe

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Measured:
    """One seed of one recipe."""

    val_accuracy: float
    test_accuracy: float
    seconds: float
    megabytes: float


def run_stage(name: str, folder: Path) -> tuple[float, float]:
    """Run a stage script; its wall-clock seconds and peak resident memory in megabytes."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    started = time.perf_counter()
    log = (folder / "log.txt").open("ab")
    process = subprocess.Popen(
        [sys.executable, ROOT / f"stages/{name}.py"],
        cwd=folder,
        env=environment,
        stdout=log,
        stderr=log,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{name} failed:\n{(folder / 'log.txt').read_text()[-2000:]}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def measure(name: str, source: str | None, seed: int, folder: Path) -> Measured:
    """Transform, train and evaluate with one seed."""
    params = folder / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text())
    recipe = find_recipe(name, ROOT / "recipes")
    recipe.values["data"].setdefault("source", source or "")
    use_recipe(recipe, params)
    lines = params.read_text().splitlines()
    params.write_text("\n".join(f"seed: {seed}" if x.startswith("seed:") else x for x in lines))
    if not (folder / "data/raw").exists():
        run_stage("fetch", folder)
    for stage in ("weights", "transform", "embed"):
        run_stage(stage, folder)
    seconds, megabytes = run_stage("train", folder)
    run_stage("evaluate", folder)
    epoch = read_json(folder / "models/classifier/model.json")["epoch"]
    history = pd.read_csv(folder / "reports/history.csv").set_index("epoch")
    return Measured(
        val_accuracy=100 * history.at[epoch, "val_accuracy"],
        test_accuracy=100 * read_json(folder / "reports/metrics.json")["accuracy"],
        seconds=seconds,
        megabytes=megabytes,
    )


@click.command()
@click.argument("recipes", nargs=-1, required=True)
@click.option("--seeds", default=5, show_default=True, help="How many, from 1.")
@click.option(
    "--source",
    type=click.Path(exists=True, resolve_path=True),
    help="data.source of recipes for pictures of one's own.",
)
def main(recipes: tuple[str, ...], seeds: int, source: str | None) -> None:
    """Print a line of Markdown per recipe."""
    click.echo("| recipe | val accuracy | test accuracy | train stage | peak memory |")
    click.echo("| --- | --- | --- | --- | --- |")
    for recipe in recipes:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "dvc.yaml").symlink_to(ROOT / "dvc.yaml")
            for name in ("src", "stages"):
                (Path(folder) / name).symlink_to(ROOT / name)
            results = [measure(recipe, source, seed, Path(folder)) for seed in range(1, seeds + 1)]
        click.echo(
            f"| {recipe} | {_spread(results, 'val_accuracy')} "
            f"| {_spread(results, 'test_accuracy')} "
            f"| {statistics.median(r.seconds for r in results):.1f} s "
            f"| {statistics.median(r.megabytes for r in results):,.0f} MB |"
        )


def _spread(results: list[Measured], name: str) -> str:
    values = [getattr(result, name) for result in results]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {spread:.2f} %"


if __name__ == "__main__":
    main()
