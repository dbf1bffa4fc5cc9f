"""`imageclf rebuild`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imageclf.commands.common import columns, echo, examples
from imageclf.files import UserError
from imageclf.text import printable

if TYPE_CHECKING:
    from imageclf.lineage.rebuild import Again, Rebuilt, Result
    from imageclf.lineage.source import Source


@click.command(
    epilog=examples(
        "imageclf rebuild digits@champion",
        "imageclf rebuild 1abc061d /tmp/again --from-scratch    make the data again too",
        "imageclf rebuild 1abc061d /tmp/again --keep-model      train nothing, check hashes",
    )
)
@click.argument("what")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--from-scratch",
    "again",
    flag_value="everything",
    help="Take only raw data and pretrained weights from a cache.",
)
@click.option(
    "--keep-model",
    "again",
    flag_value="nothing",
    help="Take the trained model from a cache too: hashes are checked, nothing is trained.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    metavar="SHARE",
    help="How far the test accuracy may differ on another machine.",
)
@click.option("--yes", is_flag=True, help="Run the source without a question.")
def rebuild(
    what: str, folder: Path | None, again: "Again | None", tolerance: float, yes: bool
) -> None:
    """Make a model again in a new FOLDER, and compare.

    WHAT is named as for `imageclf trace`. The default FOLDER is beside the project's, and named
    after the project and the fingerprint.

    The folder gets the source, params.yaml and dvc.lock of that training. The training runs again;
    the other stages run where neither the project's cache nor the default remote has their outs.
    Then every file is hashed and compared with dvc.lock. Nothing in the project or in MLflow
    changes.

    This runs the source, so its author and the files that its patch changes are shown first. If
    there is a patch, or it was trained elsewhere, a question is asked; --yes answers it.

    Exit code 0: every file is the same, or the machine is another one and the test accuracy is
    within --tolerance. 1: it is not. 2: it could not be tried.
    """
    from imageclf.lineage.find import find
    from imageclf.lineage.rebuild import rebuild as rebuild_model
    from imageclf.lineage.source import source_of
    from imageclf.project.folder import project_root

    lineage, root = find(what), project_root()
    ask_whether(source_of(lineage), yes)
    folder = folder or root.with_name(f"{root.name}-{lineage.fingerprint[:8]}")
    result = rebuild_model(lineage, folder, tolerance, again or "training", _tell)
    if result is None:
        click.echo(f"not rebuilt: a stage failed; {folder} is left as it is")
        sys.exit(1)
    show(result)
    sys.exit(0 if result.identical or result.close else 1)


def ask_whether(source: "Source", yes: bool) -> None:
    """Show which source will run, and ask whether it may; a UserError if it may not."""
    click.echo(f"source: the commit {source.commit[:12]}, {source.author}")
    click.echo(f"known from: {printable(source.origin)}")
    for line in source.changed:
        click.echo(f"patched: {line}")
    for line in source.left_out:
        click.secho(f"not rebuildable from its patch, which leaves out {line}", fg="yellow")
    if yes or source.is_own:
        return
    if not sys.stdin.isatty():
        raise UserError("this runs that source: look at it, and add --yes to allow it")
    if not click.confirm("Run this source?"):
        raise UserError("nothing was run")


def _tell(line: str) -> None:
    click.secho(f"==> {printable(line)}", bold=True)


def show(result: "Result") -> None:
    """Print each out, and the verdict."""
    echo(columns((out.recorded.path, out.recorded.md5, finding(out)) for out in result.outs))
    for out in result.outs:
        for name in out.differing:
            click.echo(printable(f"different: {name}"))
    for name, (before, now) in result.machine.items():
        click.echo(printable(f"{name}: {before or 'not known'} -> {now}"))
    click.echo(verdict(result))


def finding(out: "Rebuilt") -> str:
    """What the hash of an out proves."""
    if out.same:
        return "made again, equal" if out.made else "restored, hash checked"
    how = "made again" if out.made else "restored"
    return f"{how}, {f'DIFFERENT: now {out.md5}' if out.md5 else 'MISSING'}"


def verdict(result: "Result") -> str:
    """The result in one line."""
    if result.identical:
        made = sum(out.made for out in result.outs)
        return f"the same: all {len(result.outs)} md5s agree; {made} of these outs were made again"
    recorded, now = result.accuracy
    before = "not known" if recorded is None else f"{recorded:.4f}"
    accuracy = f"test accuracy {before} -> {now:.4f}"
    if result.close:
        return f"close: another machine, {accuracy}, at most {result.tolerance:g} apart"
    return f"not the same: {_reason(result)}; {accuracy}"


def _reason(result: "Result") -> str:
    if not result.same_fingerprint:
        return "data, source or parameters differ, so it has another fingerprint"
    if any(not out.same and not out.made for out in result.outs):
        return "what was restored is not what dvc.lock records"
    if all(out.same for out in result.outs):
        return "the registered version holds another file"
    if not result.machine:
        return "though the machine is the same"
    if result.accuracy[0] is None:
        return "its test accuracy was not kept"
    return f"more than {result.tolerance:g} apart"
