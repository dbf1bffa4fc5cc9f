"""`imageclf verify`."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from imageclf.commands.common import InProject, examples
from imageclf.files import UserError
from imageclf.text import printable

if TYPE_CHECKING:
    from imageclf.project.integrity import Copy
    from imageclf.project.lock import Out


@click.command(
    cls=InProject,
    epilog=examples(
        "imageclf verify                            the workspace, and its objects in the cache",
        "imageclf verify digits@champion            the objects of a version in the cache",
    ),
)
@click.argument("what", required=False)
def verify(what: str | None) -> None:
    """Hash every file of the pipeline, and compare with dvc.lock.

    Without WHAT, the outs in dvc.lock are checked in the workspace and in the cache. WHAT is a
    model, named as for `imageclf trace`: its outs are checked in the cache.

    Names what is damaged, and the commands that delete it and get it again.

    Exit code 0: each file has a copy, and every copy is as recorded. 1: not so. 2: it could not be
    tried.
    """
    from rich.console import Console

    from imageclf.project.dvc import shared_config
    from imageclf.project.integrity import check, copies_of

    outs, workspace = outs_of(what), None if what else Path()
    config = shared_config()
    cache = Path(config["cache"]["dir"])
    copies = [copy for out in outs for copy in copies_of(out, cache, workspace)]
    wrong, missing = check(copies, Console(stderr=True))
    for line in report(wrong, missing):
        click.echo(printable(line))
    if wrong or missing:
        click.echo("to mend it, type:")
        for line in cure(wrong, missing, what, "remote" in config["core"]):
            click.echo(f"  {printable(line)}")
        sys.exit(1)
    there = [copy for copy in copies if copy.path.exists()]
    size = sum(copy.path.stat().st_size for copy in there)
    where = "the cache" if what else "the workspace and the cache"
    click.echo(f"verified: {len(outs)} outs, {len(there):,} files in {where}, {size:,} bytes")


def outs_of(what: str | None) -> "list[Out]":
    """The outs of a model, or of the workspace; a UserError if no dvc.lock tells them."""
    from imageclf.lineage.find import find
    from imageclf.project.folder import LOCK
    from imageclf.project.lock import recorded_outs

    if what is None:
        if not Path(LOCK).exists():
            raise UserError(f"there is no {LOCK}: nothing was made here yet (type `dvc repro`)")
        return recorded_outs(Path(LOCK).read_text("utf-8"))
    if not (outs := find(what).outs):
        raise UserError(f"no {LOCK} of {what} was kept: it was never registered")
    return outs


def report(wrong: "Iterable[Copy]", missing: "Iterable[Copy]") -> Iterator[str]:
    """A line for each file that is not as recorded."""
    for copy in wrong:
        place = f"in the cache ({copy.path})" if copy.is_cached else "in the workspace"
        yield f"{'damaged' if copy.md5 else 'not recorded'}: {copy.name} {place}"
    for copy in missing:
        yield f"missing: {copy.name} has no copy here"


def cure(
    wrong: "Sequence[Copy]", missing: "Sequence[Copy]", what: str | None, has_remote: bool
) -> Iterator[str]:
    """The commands that delete what is wrong, and get or make it again."""
    for path in dict.fromkeys(str(copy.path) for copy in wrong):
        yield f"rm -rf {quote(path)}"
    outs = dict.fromkeys(copy.out for copy in (*wrong, *missing))
    paths = " ".join(quote(out.path) for out in outs)
    if what:  # it takes from the remote what the cache lacks, or makes it
        yield f"imageclf rebuild {quote(what)}"
    elif not missing and not any(copy.is_cached for copy in wrong):
        yield f"dvc checkout {paths}"
    elif has_remote:
        yield f"dvc pull {paths}"
    else:
        stages = dict.fromkeys(out.stage for out in outs)
        yield f"dvc repro --force --single-item {' '.join(stages)}"
