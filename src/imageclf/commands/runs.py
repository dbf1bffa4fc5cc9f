"""`imageclf runs`."""

from typing import TYPE_CHECKING

import click

from imageclf.commands.common import examples
from imageclf.project.folder import CLASSIFIER
from imageclf.text import csv_cells, printable

if TYPE_CHECKING:
    import pandas as pd

    from imageclf.tracking.queries import RunSummary

METRICS = ["val_loss", "val_accuracy", "test_accuracy"]
MODEL = CLASSIFIER / "model.json"


@click.command(epilog=examples("imageclf runs", "imageclf runs --csv > runs.csv"))
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with nothing shortened.")
def runs(as_csv: bool) -> None:
    """List the runs in MLflow, newest first.

    Parameters are shown if they differ between the runs. The star marks the run of the model in
    the workspace, the status "restored" a model that came from a cache when it was last
    registered, and + a source that differed from the commit.
    """
    from imageclf.network.description import read_fingerprint
    from imageclf.tracking.journal import unreadable_journals
    from imageclf.tracking.queries import list_runs

    for reason in unreadable_journals():
        click.echo(f"skipped: {printable(reason)}", err=True)
    here = read_fingerprint(CLASSIFIER) if MODEL.exists() else None
    table = run_table(list_runs(), here)
    if as_csv:
        click.echo(csv_cells(table).to_csv(index=False), nl=False)
    elif table.empty:
        click.echo("no runs yet: type `dvc repro`")
    else:
        click.echo(
            one_line(_shortened(table)).to_string(
                index=False, na_rep="", float_format="{:.4f}".format
            )
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


def one_line(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with each text as a terminal may have it."""
    shown = table.map(lambda cell: printable(cell) if isinstance(cell, str) else cell)
    return shown.rename(columns=printable)


def _shortened(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with shorter cells, for a terminal."""
    dirty = table["git_dirty"].map({"true": "+"}).fillna("")
    restored = table["restored_from_cache"] == "true"
    shorter = table.assign(
        workspace=table["workspace"].map({True: "*", False: ""}),
        started=table["started"].map(
            lambda time: f"{time.to_pydatetime().astimezone():%Y-%m-%d %H:%M}"
        ),
        fingerprint=table["fingerprint"].str[:8],
        git_commit=table["git_commit"].str[:7] + dirty,
        status=table["status"].str.lower().mask(restored, "restored"),
    )
    shorter = shorter.drop(columns=["git_dirty", "restored_from_cache"])
    return shorter.rename(columns={"workspace": "", "git_commit": "commit"})
