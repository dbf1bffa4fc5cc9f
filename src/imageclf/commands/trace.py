"""`imageclf trace`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from imageclf.commands.common import columns, echo, examples, lines

if TYPE_CHECKING:
    from rich.console import RenderableType

    from imageclf.lineage.find import Lineage
    from imageclf.lineage.trace import Trace

FIGURES = ("test_accuracy", "test_loss", "val_accuracy", "val_loss")
RUN_SHOWN = ("id", "name", "experiment", "status", "started")
WHEREABOUTS = {True: "yes", False: "no", None: "?"}
SHOWN_DIGITS = 12  # of a digest; --json prints all


@click.command(
    epilog=examples(
        "imageclf trace digits@champion            what is the champion made from?",
        "imageclf trace models/classifier          the model in the workspace",
        "imageclf trace 1abc061d                   a fingerprint, or the id of a run",
        "imageclf trace ~/Downloads/model.onnx     an exported file",
    )
)
@click.argument("what")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")
def trace(what: str, as_json: bool) -> None:
    """Show what a model was made from.

    WHAT is NAME (the newest version of a registered model), NAME@champion or NAME/3, with or
    without models:/; the name or id of a run; a fingerprint or its first 8 digits; or the path of
    a model's folder or exported file.

    Shows its version, run, commit, parameters, data, machine and figures, and for every file of
    the pipeline whether the local cache and the default remote have it. What cannot be found out
    is listed at the end.
    """
    from rich.console import Console
    from rich.text import Text

    from imageclf.lineage.trace import trace as trace_model

    with Console(stderr=True).status("asking MLflow and DVC"):
        found = trace_model(what)
    if as_json:
        click.echo(json.dumps(as_dict(what, found), indent=2))
        return
    echo(columns((Text(title, style="cyan"), value) for title, value in _rows(found)))


def as_dict(what: str, found: "Trace") -> dict[str, Any]:
    """A trace as JSON values; times are in milliseconds since 1970."""
    lineage, run = found.lineage, found.lineage.run
    return {
        "what": what,
        "fingerprint": lineage.fingerprint,
        "versions": [asdict(version) for version in run.versions] if run else [],
        "run": run and {name: getattr(run, name) for name in RUN_SHOWN},
        "tags": lineage.tags | lineage.provenance.tags(),
        "commit_subject": found.subject,
        "changed_files": lineage.changed_files,
        "params": lineage.params,
        "differing_params": [key for key, *_ in _differing(found)],
        "source": found.source,
        "digests": found.digests,
        "metrics": found.metrics,
        "outs": [asdict(out) for out in found.outs],
        "unknown": found.unknown,
    }


def _rows(found: "Trace") -> Iterator[tuple[str, "RenderableType"]]:
    """The rows of the output: a title and its contents."""
    yield from _names(found.lineage)
    yield from _origin(found)
    if found.source or found.digests:
        yield "data", lines(*_data(found))
    if weights := found.lineage.tags.get("weights.sha256"):
        title = found.lineage.tags.get("weights.title", "")
        yield "began with", lines(title, f"sha256: {weights[:SHOWN_DIGITS]}")
    if differing := list(_differing(found)):
        yield "parameters", columns(differing)
    if figures := [
        f"{name} {found.metrics[name]:.4f}" for name in FIGURES if name in found.metrics
    ]:
        yield "figures", ", ".join(figures)
    if found.outs:
        yield "outs", columns(_whereabouts(found))
    if found.unknown:
        yield "not known", lines(*found.unknown, style="yellow")


def _names(lineage: "Lineage") -> Iterator[tuple[str, "RenderableType"]]:
    run = lineage.run
    for version in run.versions if run else []:
        aliases = f"  {', '.join(version.aliases)}" if version.aliases else ""
        yield "version", f"{version.name} {version.number}{aliases}"
    yield "fingerprint", lineage.fingerprint
    if run:
        started = datetime.fromtimestamp(run.started / 1000).astimezone()
        state = f"{run.status.lower()}, begun {started:%Y-%m-%d %H:%M}"
        state += ", restored from a cache" if "restored_from_cache" in run.tags else ""
        yield "run", lines(f"{run.id}  {run.name}", f"experiment {run.experiment}, {state}")


def _origin(found: "Trace") -> Iterator[tuple[str, "RenderableType"]]:
    provenance = found.lineage.provenance
    if provenance.commit:
        yield "commit", f"{provenance.commit}  {found.subject or ''}"
    if changed := found.lineage.changed_files:
        state = f"{'not rebuildable from ' if found.lineage.left_out else ''}changes.patch"
        yield "changed", f"{', '.join(changed)}  ({state})"
    if experiment := found.lineage.tags.get("DVC_EXP_NAME"):
        yield "dvc exp", experiment
    if provenance.hardware:
        versions = (f"{name} {version}" for name, version in provenance.versions.items())
        machine = f"{provenance.device}, {provenance.hardware}"
        yield "machine", lines(machine, ", ".join(versions))


def _data(found: "Trace") -> Iterator[str]:
    params = found.lineage.params
    source = found.source.get("title") or params.get("data.source")
    yield ": ".join(filter(None, (params.get("data.name"), source)))
    if homepage := found.source.get("homepage"):
        yield f"{homepage}  ({found.source.get('licence', 'licence not known')})"
    if found.digests:
        short = (f"{name} {digest[:SHOWN_DIGITS]}" for name, digest in found.digests.items())
        yield f"sha256: {', '.join(short)}"


def _differing(found: "Trace") -> Iterator[tuple[str, str, str]]:
    """Parameters that differ from the recipe: name, value, and the recipe's value."""
    for name, value in found.lineage.params.items():
        if name in found.base and str(value) != str(found.base[name]):
            yield name, str(value), f"({found.base[name]})"


def _whereabouts(found: "Trace") -> Iterator[tuple[str, ...]]:
    yield "", "md5", "cache", "remote"
    for out in found.outs:
        yield out.path, out.md5, WHEREABOUTS[out.in_cache], WHEREABOUTS[out.on_remote]
