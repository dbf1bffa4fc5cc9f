"""`imageclf summary`."""

import os
import re
from collections.abc import Iterator

import click

from imageclf.files import read_json
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
from imageclf.text import printable

REPORT, SUSPECTS = EVALUATION / "index.html", REPORTS / "suspects.json"


@click.command()
def summary() -> None:
    """Show what came out of the pipeline, and where it is."""
    from imageclf.network.description import read_fingerprint
    from imageclf.tracking.connection import shown

    metrics = read_json(METRICS)
    server = shown(os.environ.get("MLFLOW_TRACKING_URI", ""))
    exported = sorted(path for path in EXPORTED.glob("model.*"))
    rows = [
        (
            "test accuracy",
            f"{metrics['accuracy']:.2%}  (99% interval from {metrics['accuracy_low']:.2%};"
            f" always guessing one class: {metrics['majority_accuracy']:.2%})",
        ),
        *_top_k_rows(metrics),
        *(("warning", warning) for warning in _warnings()),
        ("test images", f"{metrics['images']:,}"),
        ("fingerprint", read_fingerprint(CLASSIFIER)),
        ("report", str(REPORT)),
        ("data", str(AUDIT_PAGE)),
        ("wrong labels", _wrong_labels()),
        ("plots", "dvc plots show"),
        ("exported model", "  ".join(map(str, exported)) or "missing: run `dvc repro`"),
        ("runs and models", server if server.startswith("http") else "make ui"),
        ("your own images", "imageclf predict IMAGE"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {printable(value)}")


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


def _top_k_rows(metrics: dict[str, float]) -> Iterator[tuple[str, str]]:
    for key, value in metrics.items():
        if match := re.fullmatch(r"top_(\d+)_accuracy", key):
            yield f"among the top {match[1]}", f"{value:.2%}"
