"""fetch and transform with many images: time and memory, and a kill in the middle.

    python benchmarks/scale.py --images 10000 --images 100000

Generates photographs of mixed sizes, as JPEG in ten classes, and runs the real stages on them in a
temporary folder. Memory is that of the stage and its workers together (PSS, which counts what they
share once), looked at every tenth of a second. Then transform is killed (kill -9) half-way and
started again, and must end in the same bytes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.params import ROOT, changed
from imageclf.files import sha256_file
from imageclf.system.machine import cores
from table import machine

CLASSES = 10
SIDES = (60, 400)  # pixels, from the shortest to the longest
LOOK = 0.1  # seconds between two looks at the memory
HEADER = ["images", "stage", "s", "ms an image", "processor ms an image", "peak memory, MB"]


@dataclass(frozen=True)
class Measured:
    """A stage: seconds by the clock and of the processors, and the peak of its memory in bytes."""

    seconds: float
    processor: float
    peak: int
    output: str


def generate(folder: Path, number: int) -> None:
    """A smooth scene with some grain, another one for every number."""
    generator = np.random.default_rng(number)
    width, height = generator.integers(*SIDES, 2)
    spots = Image.fromarray(generator.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    scene = np.asarray(spots.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = generator.integers(-6, 7, (height, width, 1))
    image = Image.fromarray((scene + grain).clip(0, 255).astype(np.uint8))
    image.save(folder / f"class{number % CLASSES}/{number:07}.jpg", quality=85)


def start(stage: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / f"stages/{stage}.py")],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def watched(stage: str, folder: Path) -> Measured:
    """Run a stage to its end."""
    started = time.perf_counter()
    process = start(stage, folder)
    top, peak, times = psutil.Process(process.pid), 0, {}
    while process.poll() is None:
        memory = 0
        with suppress(psutil.NoSuchProcess):
            for each in [top, *top.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    memory += each.memory_full_info().pss
                    times[each.pid] = sum(each.cpu_times()[:2])
        peak = max(peak, memory)
        time.sleep(LOOK)
    if process.returncode:
        raise click.ClickException(f"{stage} ended with {process.returncode}")
    seconds = time.perf_counter() - started
    return Measured(seconds, sum(times.values()), peak, process.stdout.read())


def killed_half_way(folder: Path, images: int) -> None:
    process = start("transform", folder)
    blocks = folder / "data/.blocks"
    while 2 * 256 * len(list(blocks.glob("*/*.json"))) < images:
        if process.poll() is not None:
            raise click.ClickException("transform ended before it could be killed")
        time.sleep(LOOK)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def digests(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in (folder / "data/prepared").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_file(path) for path in paths}


def measured(images: int, side: int, limit: float, work: Path) -> list[list[str]]:
    """The rows of the table for so many images."""
    photos = work / "photos"
    for number in range(CLASSES):
        (photos / f"class{number}").mkdir(parents=True)
    click.echo(f"generating {images:,} images")
    with ProcessPoolExecutor(cores()) as pool:
        for _ in pool.map(partial(generate, photos), range(images), chunksize=500):
            pass
    params = changed(
        data__name="image_folder",
        data__source="photos",
        model__name="mlp",
        transform__image_size=side,
        transform__packed_limit_gb=limit,
    )
    (work / "params.yaml").write_text(json.dumps(params))
    stages = {"fetch": watched("fetch", work), "transform": watched("transform", work)}
    expected = digests(work)
    shutil.rmtree(work / "data/prepared")
    killed_half_way(work, images)
    again = watched("transform", work)
    if digests(work) != expected or "carrying on" not in again.output:
        raise click.ClickException("killed and started again, transform gave other bytes")
    click.echo(f"killed half-way: {again.output.splitlines()[0]}; the same bytes in the end")
    stages["transform, the rest after a kill"] = again
    return [
        [
            f"{images:,}",
            name,
            f"{stage.seconds:,.0f}",
            f"{stage.seconds / images * 1e3:.2f}",
            f"{stage.processor / images * 1e3:.2f}",
            f"{stage.peak / 1e6:,.0f}",
        ]
        for name, stage in stages.items()
    ]


@click.command(help=__doc__)
@click.option("--images", multiple=True, default=[10_000, 100_000], show_default=True, metavar="N")
@click.option("--side", default=64, show_default=True, help="Pixels, of transform.image_size.")
@click.option(
    "--packed-limit-gb", default=8.0, show_default=True, help="From there on, JPEG in shards."
)
def main(images: tuple[int, ...], side: int, packed_limit_gb: float) -> None:
    rows = []
    for count in images:
        with tempfile.TemporaryDirectory() as name:
            rows += measured(count, side, packed_limit_gb, Path(name))
    click.echo(machine())
    rule = ["---:", "---", *["---:"] * (len(HEADER) - 2)]
    for row in (HEADER, rule, *rows):
        click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
