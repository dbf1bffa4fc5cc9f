"""`imageclf summary`."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from imageclf.files import read_json

EXPORTED = Path("models/exported")
REPORT = Path("reports/evaluation/index.html")


@click.command()
def summary() -> None:
    """Show what came out of the pipeline, and where it is."""
    metrics = read_json(Path("reports/metrics.json"))
    description = read_json(Path("models/classifier/model.json"))
    exported = sorted(path for path in EXPORTED.glob("model.*"))
    rows = [
        (
            "test accuracy",
            f"{metrics['accuracy']:.2%}  (99% interval from {metrics['accuracy_low']:.2%};"
            f" always guessing one class: {metrics['majority_accuracy']:.2%})",
        ),
        *_top_k_rows(metrics),
        ("test images", f"{metrics['images']:,}"),
        ("fingerprint", description["fingerprint"]),
        ("report", str(REPORT)),
        ("plots", "dvc plots show"),
        ("exported model", "  ".join(map(str, exported)) or "missing: run `dvc repro`"),
        ("runs and models", "make ui"),
        ("your own images", "imageclf predict IMAGE"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def _top_k_rows(metrics: dict[str, float]) -> Iterator[tuple[str, str]]:
    for key, value in metrics.items():
        if match := re.fullmatch(r"top_(\d+)_accuracy", key):
            yield f"among the top {match[1]}", f"{value:.2%}"
