"""`imageclf compare`."""

from typing import TYPE_CHECKING

import click

from imageclf.commands.common import InProject, columns, echo, examples
from imageclf.files import UserError, write_text
from imageclf.project.folder import COMPARISON, PREPARED

if TYPE_CHECKING:
    from imageclf.evaluation.comparison import Comparison


@click.command(
    cls=InProject,
    epilog=examples(
        "imageclf compare                        the workspace against the champion",
        "imageclf compare models:/digits/2       that version against the champion",
        "imageclf compare models:/digits/2 models:/digits/1",
        "imageclf compare workspace HEAD~1       before and after a commit",
    ),
)
@click.argument("first", metavar="[A", default="workspace")
@click.argument("second", metavar="[B]]", required=False)
def compare(first: str, second: str | None) -> None:
    """Compare two models: which one is better, and where.

    A and B are named as for `imageclf trace`, or `workspace`, or a git revision: its dvc.lock, or
    else the one model that was trained from it. A is the workspace if it is left out, and B the
    champion of A's name; if A is the champion, the one before it.

    Writes reports/compare.html, one file with all pictures: parameters that differ, figures with
    99 % confidence intervals, McNemar's test, the images that only one model has right, and how
    far their confidence can be trusted. The figures and predictions come from MLflow or from
    DVC's cache. `dvc repro` puts such a page in MLflow for each new version, among the reports of
    its run.
    """
    from rich.console import Console

    with Console(stderr=True).status("reading both models"):
        from imageclf.evaluation.comparison import compare as compare_models
        from imageclf.evaluation.comparison_page import render_comparison
        from imageclf.lineage.contenders import named, rival

        model = named(first)
        other = named(second) if second else rival(model)
        if other is None:
            raise UserError(f"{model.title} has no champion to beat: name another model as B")
        if other.fingerprint == model.fingerprint:
            raise UserError(f"{model.title} and {other.title} are the same model")
        compared = compare_models(model, other)
        write_text(COMPARISON, render_comparison(compared, PREPARED))
    show(compared)


def show(compared: "Comparison") -> None:
    """Print a comparison in short."""
    from imageclf.evaluation.comparison import verdict
    from imageclf.intervals import accuracy_told

    told = [
        accuracy_told(round(model.figures["accuracy"] * images), images)
        if (images := int(model.figures.get("images", 0)))
        else "its figures are not available"
        for model in compared.models
    ]
    titles = [model.title for model in compared.models]
    echo(columns(zip(titles, told, strict=True)))
    echo(verdict(compared))
    for remark in compared.remarks[1:]:
        echo(remark)
    if compared.params:
        click.echo("\nparameters that differ:")
        echo(columns([("", *titles), *compared.params]))
    click.echo(f"\n{COMPARISON}")
