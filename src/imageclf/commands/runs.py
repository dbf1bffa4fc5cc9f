"""`imageclf runs`."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from imageclf.commands.common import console, examples
from imageclf.intervals import percent
from imageclf.project.folder import CLASSIFIER
from imageclf.text import csv_cells, printable

if TYPE_CHECKING:
    import pandas as pd

    from imageclf.tracking.queries import RunSummary

METRICS = ["val_loss", "val_accuracy", "test_accuracy"]
MODEL = CLASSIFIER / "model.json"
HEADING = "     test      val  started           model     commit"
INDENT = " " * 20  # below the start of a run


@click.command(epilog=examples("imageclf runs", "imageclf runs --csv > runs.csv"))
@click.option("--all-params", is_flag=True, help="Show every parameter, not only what differs.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with nothing shortened.")
def runs(all_params: bool, as_csv: bool) -> None:
    """List the runs in MLflow, newest first, by data set.

    A line has the accuracy on test and on val, the start, the fingerprint, the commit (+: the
    source differed from it) and the name of a DVC experiment. Below it are the parameters that
    differ between the runs of the data set. The star marks the model in the workspace. A model
    that came from a cache when it was last registered is "restored".
    """
    from imageclf.network.description import read_fingerprint
    from imageclf.tracking.journal import unreadable_journals
    from imageclf.tracking.queries import list_runs

    for reason in unreadable_journals():
        click.echo(f"skipped: {printable(reason)}", err=True)
    here = read_fingerprint(CLASSIFIER) if MODEL.exists() else None
    found = list_runs()
    if as_csv:
        click.echo(csv_cells(run_table(found, here)).to_csv(index=False), nl=False)
    elif not found:
        click.echo("no runs yet: type `imageclf run`")
    else:
        for line in run_lines(found, here, all_params, console().width):
            click.echo(line)


def run_lines(
    found: "list[RunSummary]", here: str | None, all_params: bool, width: int
) -> Iterator[str]:
    """The runs by data set: a line for each, and below it its parameters."""
    for number, (title, group) in enumerate(_by_data(found).items()):
        if number:
            yield ""
        yield printable(title)
        yield HEADING
        alike = {key for key, values in _values(group).items() if len(values) == 1}
        for run in group:
            yield printable(_line(run, here))[:width].rstrip()
            shown = [
                printable(f"{key} {value}")
                for key, value in run.params.items()
                if all_params or key not in alike
            ]
            yield from wrap(
                ", ".join(shown), width, initial_indent=INDENT, subsequent_indent=INDENT
            )


def _by_data(found: "list[RunSummary]") -> "dict[str, list[RunSummary]]":
    """The runs of each data set; with another test split it is another one.

    A run that was not tested goes with the newest that was.
    """
    keys = [
        (run.params.get("data.name", "unknown data"), run.tags.get("data.test")) for run in found
    ]
    newest = {name: digest for name, digest in reversed(keys) if digest}
    groups: dict[tuple[str, str], list[RunSummary]] = {}
    for run, (name, digest) in zip(found, keys, strict=True):
        groups.setdefault((name, digest or newest.get(name, "")), []).append(run)
    names = Counter(name for name, _ in groups)
    return {
        f"{name}, test split {digest[:8]}" if names[name] > 1 else name: group
        for (name, digest), group in groups.items()
    }


def _values(group: "list[RunSummary]") -> dict[str, set[str | None]]:
    """The values of each parameter in a group; None where a run has it not."""
    keys = {key for run in group for key in run.params}
    return {key: {run.params.get(key) for run in group} for key in keys}


def _line(run: "RunSummary", here: str | None) -> str:
    shares = [run.metrics.get(name) for name in ("test_accuracy", "val_accuracy")]
    test, val = ("" if share is None else percent(share) for share in shares)
    started = datetime.fromtimestamp(run.started / 1000).astimezone()
    dirty = "+" if run.provenance.tags().get("git_dirty") == "true" else ""
    commit = (run.provenance.commit or "")[:7] + dirty
    restored = run.tags.get("restored_from_cache") == "true"
    status = "restored" if restored else run.status.lower().replace("finished", "")
    star = "*" if run.fingerprint == here else ""
    return (
        f"{star:1} {test:>7}  {val:>7}  {started:%Y-%m-%d %H:%M}  {run.fingerprint[:8]}  "
        f"{commit:8}  {' '.join(filter(None, (status, run.tags.get('DVC_EXP_NAME'))))}"
    )


def run_table(found: "list[RunSummary]", here: str | None) -> "pd.DataFrame":
    """One row per run; ``here`` is the fingerprint of the workspace's model."""
    import pandas as pd

    origin = pd.DataFrame(
        {
            "workspace": run.fingerprint == here,
            "started": pd.Timestamp(run.started, unit="ms", tz="UTC"),
            "experiment": run.tags.get("DVC_EXP_NAME", ""),
            "fingerprint": run.fingerprint,
            "git_commit": run.provenance.commit or "",
            "git_dirty": run.provenance.tags().get("git_dirty", ""),
            "status": run.status,
            "restored_from_cache": run.tags.get("restored_from_cache", "false"),
        }
        for run in found
    )
    params = pd.DataFrame([run.params for run in found])
    differing = params.loc[:, params.nunique(dropna=False) > 1]
    metrics = pd.DataFrame([run.metrics for run in found]).reindex(columns=METRICS)
    return pd.concat([origin, differing, metrics], axis="columns")
