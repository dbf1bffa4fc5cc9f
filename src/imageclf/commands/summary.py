"""`imageclf summary`."""

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from imageclf.commands.common import columns, echo, lines
from imageclf.commands.results import (
    data_title,
    epoch_told,
    image_counts,
    network_told,
    registered_told,
)
from imageclf.files import read_json
from imageclf.intervals import accuracy_told, percent
from imageclf.project.folder import (
    AUDIT_PAGE,
    CLASSIFIER,
    EVALUATION,
    EXPORTED,
    METRICS,
    PREPARED,
    REPORTS,
    WARNINGS,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

REPORT, SUSPECTS = EVALUATION / "index.html", REPORTS / "suspects.json"
SHOWN_DIGITS = 12  # of a fingerprint


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Show the whole fingerprint.")
def summary(verbose: bool) -> None:
    """Show what came out of the pipeline, and where it is."""
    from imageclf.network.description import read_fingerprint
    from imageclf.tracking.connection import shown

    metrics = read_json(METRICS)
    fingerprint = read_fingerprint(CLASSIFIER)
    server = shown(os.environ.get("MLFLOW_TRACKING_URI", ""))
    exported = [*map(str, sorted(EXPORTED.glob("model.*")))]
    rows: list[tuple[str, RenderableType]] = [
        ("data", lines(data_title(), image_counts())),
        ("network", lines(network_told(), epoch_told())),
        ("accuracy", lines(*_accuracy(metrics))),
        *(("registered", told) for told in [registered_told(with_accuracy=False)] if told),
        *(("warning", lines(text, style="yellow")) for text in _warnings()),
        ("fingerprint", fingerprint if verbose else fingerprint[:SHOWN_DIGITS]),
    ]
    echo(columns(rows))
    click.echo()
    echo(
        columns(
            [
                ("the report", str(REPORT)),
                ("the data", str(AUDIT_PAGE)),
                ("the model", lines(*(exported or ["missing: run `dvc repro`"]))),
                ("all runs", server if server.startswith("http") else "make ui"),
                ("wrong labels", _wrong_labels()),
                ("your own images", "imageclf predict IMAGE"),
            ]
        )
    )


def _accuracy(metrics: dict[str, float]) -> Iterator[str]:
    images = round(metrics["images"])
    yield accuracy_told(round(metrics["accuracy"] * images), images)
    for key, value in metrics.items():
        if match := re.fullmatch(r"top_(\d+)_accuracy", key):
            yield f"{percent(value)} among the {match[1]} likeliest classes"
    yield f"{percent(metrics['majority_accuracy'])} by always guessing the commonest class"


def _warnings() -> list[str]:
    """Those of the report; an evaluation by an earlier version has no such file."""
    return list(read_json(WARNINGS)) if WARNINGS.exists() else []


def _wrong_labels() -> str:
    """What `imageclf suspects` found in the present data, or else the command."""
    digests = PREPARED / "digests.json"
    if SUSPECTS.exists() and digests.exists():
        found = read_json(SUSPECTS)
        if found["data"].items() <= read_json(digests).items():
            return f"{found['suspects']:,} suspects: {SUSPECTS.with_suffix('.html')}"
    return "imageclf suspects"
