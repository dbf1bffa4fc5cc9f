"""Ten epochs of a head on a frozen network's features, against the course's loop (Part 8).

    python benchmarks/frozen.py FOLDER [--network densenet121]

FOLDER holds {train,test}/CLASS. The course reads each photograph anew in every epoch and sends it
through the backbone, which never changes. The stages embed and train do so once, and have more to
do: they start, hash, validate, report to MLflow, and write checkpoints and the model. Weights are
random, which costs the same. Times are of whole processes on the same cores, one after the other;
what counts are the ratios.

The course's loop is timed for one epoch of training and validation, of which ten would be ten
times as many; its backbone's share of that epoch is the pass that everything is compared with.
"""

import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from helpers.params import ROOT, changed
from recipes import run_stage

if TYPE_CHECKING:
    from torch import nn

COURSE = """
import sys, time
import torch
from frozen import network_of
from torch import nn, optim
from torch.utils.data import DataLoader, random_split
from torchvision import datasets, transforms

torch.manual_seed(0)
steps = [transforms.Resize(255), transforms.CenterCrop(224), transforms.ToTensor(),
         transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
images = datasets.ImageFolder(sys.argv[1], transforms.Compose(steps))
train, val = random_split(images, [0.9, 0.1])
backbone = network_of(sys.argv[2])
width, backbone.classifier = backbone.classifier.in_features, nn.Identity()
for weight in backbone.parameters():
    weight.requires_grad = False
head = nn.Sequential(nn.Linear(width, 500), nn.ReLU(), nn.Dropout(0.2),
                     nn.Linear(500, 2), nn.LogSoftmax(dim=1))
model = nn.Sequential(backbone, head)
optimizer, criterion = optim.Adam(head.parameters(), lr=0.003), nn.NLLLoss()
spent = 0.0

def forward(batch):
    global spent
    started = time.perf_counter()
    features = backbone(batch)
    spent += time.perf_counter() - started
    return head(features)

started = time.perf_counter()
model.train()
for batch, labels in DataLoader(train, 32, shuffle=True):
    optimizer.zero_grad()
    loss = criterion(forward(batch), labels)
    loss.backward()
    optimizer.step()
    loss.item()
model.eval()
with torch.no_grad():
    for batch, labels in DataLoader(val, 32):
        criterion(forward(batch), labels).item()
print(f"epoch {time.perf_counter() - started:.2f} backbone {spent:.2f}")
"""


def network_of(name: str) -> "nn.Module":
    """A network with random weights; its head is a linear layer by the name of ``classifier``."""
    import timm
    import torchvision

    if name.startswith("timm/"):
        return timm.create_model(name.removeprefix("timm/"))
    return torchvision.models.get_model(name)


def copied(folder: Path, share: float, target: Path) -> None:
    """A share of the photographs of each class, as links."""
    for place in sorted(folder.glob("*/*")):
        names = sorted(place.iterdir())
        (target / place.relative_to(folder)).mkdir(parents=True)
        for path in random.Random(0).sample(names, max(4, round(share * len(names)))):
            (target / path.relative_to(folder)).symlink_to(path)


def course(work: Path, network: str) -> tuple[float, float]:
    """Seconds of an epoch, and of the backbone in it."""
    command = [sys.executable, "-c", COURSE, str(work / "photos/train"), network]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    epoch, backbone = re.findall(r"[\d.]+", done.stdout)
    return float(epoch), float(backbone)


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--network", default="timm/tf_efficientnet_lite0", show_default=True)
@click.option("--share", default=1.0, show_default=True, help="Of the photographs.")
@click.option("--rounds", default=1, show_default=True, help="How often each is timed.")
def main(folder: Path, network: str, share: float, rounds: int) -> None:
    import torch

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        copied(folder.resolve(), share, work / "photos")
        torch.save(network_of(network).state_dict(), work / "weights.pth")
        settings = {
            "data__name": "image_folder",
            "data__source": str(work / "photos"),
            "data__max_leak_fraction": 0.5,
            "transform__image_size": 224,
            "model__name": network,
            "model__weights": str(work / "weights.pth"),
            "model__freeze": "backbone",
            "model__head": [500],
            "model__dropout": 0.2,
            "train__epochs": 10,
            "train__batch_size": 32,
            "evaluate__top_k": 1,
        }
        (work / "params.yaml").write_text(json.dumps(changed(**settings)))
        (work / "dvc.yaml").symlink_to(ROOT / "dvc.yaml")
        for path in ("src", "stages"):
            (work / path).symlink_to(ROOT / path)
        for stage in ("fetch", "weights", "transform"):
            run_stage(stage, work)
        ratios = []
        for _ in range(rounds):
            epoch, backbone = course(work, network)
            embed, train = (run_stage(stage, work)[0] for stage in ("embed", "train"))
            ratios.append((embed + train) / backbone)
            click.echo(
                f"course: an epoch {epoch:.1f} s, of that the backbone {backbone:.1f} s; ours: "
                f"embed {embed:.1f} s, ten epochs {train:.1f} s: {ratios[-1]:.2f} passes of the "
                f"backbone, and {10 * epoch / (embed + train):.1f} times as fast as ten epochs"
            )
    click.echo(f"median: {statistics.median(ratios):.2f} passes of the backbone")


if __name__ == "__main__":
    main()
