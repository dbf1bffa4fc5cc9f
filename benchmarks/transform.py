"""Images a second from files to arrays of 224 pixels: the transform stage against torchvision.

    python benchmarks/transform.py FOLDER --copies 5

FOLDER holds a folder per class, or splits with one each. torchvision reads them as its tutorials
do: ImageFolder, Resize 255, CenterCrop 224, ToTensor and a DataLoader with two workers, here of
batches of 64. The stage does more: it hashes, looks for duplicates, draws splits and writes to the
disk. Both are timed from the import of their libraries on, in turns, in processes of their own;
what counts is the ratio. With few photographs the start decides much of it; --copies takes each
photograph several times.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.params import ROOT, changed

TORCHVISION = """
import sys
from torch.utils.data import ConcatDataset, DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

steps = Compose([Resize(255), CenterCrop(224), ToTensor()])
sets = ConcatDataset([ImageFolder(folder, steps) for folder in sys.argv[1:]])
print(sum(len(images) for images, _ in DataLoader(sets, 64, num_workers=2)))
"""
SETTINGS = {
    "data__name": "image_folder",
    "model__name": "mlp",
    "transform__image_size": 224,
    "transform__fit": "crop",
    "evaluate__top_k": 1,
}


def seconds(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def copied(folder: Path, target: Path, copies: int) -> Path:
    """The folder itself, or one where every photograph stands several times in its class."""
    if copies == 1:
        return folder
    for path in (path for path in folder.rglob("*") if path.is_file()):
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        for number in range(copies):
            place.with_name(f"{number}-{path.name}").symlink_to(path)
    return target


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rounds", default=3, show_default=True, help="How often each is timed.")
@click.option("--copies", default=1, show_default=True, help="How often each photograph is taken.")
def main(folder: Path, rounds: int, copies: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = copied(folder.resolve(), work / "photos", copies)
        splits = [path for path in folder.iterdir() if path.name in {"train", "val", "test"}]
        torchvision = [sys.executable, "-c", TORCHVISION, *map(str, splits or [folder])]
        transform = [sys.executable, str(ROOT / "stages/transform.py")]
        params = changed(data__source=str(folder), **SETTINGS)
        (work / "params.yaml").write_text(json.dumps(params))
        seconds([sys.executable, str(ROOT / "stages/fetch.py")], work)
        count = json.loads((work / "data/raw/source.json").read_text())["images"]
        ratios = []
        for _ in range(rounds):
            theirs = seconds(torchvision, work)
            shutil.rmtree(work / "data/prepared", ignore_errors=True)  # as DVC does, at this point
            ours = seconds(transform, work)
            ratios.append(theirs / ours)
            click.echo(
                f"torchvision {count / theirs:6.0f} images/s   transform {count / ours:6.0f} "
                f"images/s   {ratios[-1]:.2f} times as fast"
            )
    click.echo(f"{count:,} images, median: {statistics.median(ratios):.2f} times as fast")


if __name__ == "__main__":
    main()
