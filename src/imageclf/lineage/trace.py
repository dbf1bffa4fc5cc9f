"""Trace: a lineage, and what git, DVC's cache and its default remote have of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from imageclf.files import UserError
from imageclf.lineage.find import Lineage, find
from imageclf.params import flatten
from imageclf.project.dvc import laid_out, missing, missing_on_remote, read_outs
from imageclf.project.folder import LOCK, METRICS, PREPARED, RAW
from imageclf.project.git import git_if_any
from imageclf.project.lock import Out, bare_pipeline, lacks
from imageclf.recipes import BASE, find_recipe

# The outs with what is shown of the data and the model's figures.
SOURCE, DIGESTS = str(RAW / "source.json"), str(PREPARED / "digests.json")
FIGURES = str(METRICS)
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Trace:
    """A lineage and where its files are.

    Attributes:
        subject: the first line of the commit's message; None if git has no such commit.
        base: parameters of the recipe ``BASE``, by dotted path.
        source: the data set's name, title, homepage, licence, files.
        digests: the sha256 of each split, by name.
        metrics: figures by name, those of the test split prefixed with ``test_``.
        outs: in dvc.lock, and whether the cache and the remote have them.
        unknown: what could not be found out, and why; a line each.
    """

    lineage: Lineage
    subject: str | None
    base: dict[str, Any]
    source: dict[str, Any]
    digests: dict[str, str]
    metrics: dict[str, float]
    outs: list[Out]
    unknown: list[str]


def trace(what: str) -> Trace:
    """Trace a model; ``what`` and the errors are those of ``find``."""
    lineage = find(what)
    unknown = list(lineage.unknown)
    outs, values = _stored(lineage, unknown)
    tagged = {split: lineage.tags.get(f"data.{split}") for split in SPLITS}
    test = {f"test_{name}": value for name, value in values.get(FIGURES, {}).items()}
    return Trace(
        lineage=lineage,
        subject=_subject(lineage, unknown),
        base=_base(unknown),
        source=values.get(SOURCE, {}),
        digests=values.get(DIGESTS) or {name: digest for name, digest in tagged.items() if digest},
        metrics=(lineage.run.metrics if lineage.run else {}) | test,
        outs=outs,
        unknown=unknown,
    )


def _subject(lineage: Lineage, unknown: list[str]) -> str | None:
    commit = lineage.provenance.commit
    if commit is None:
        return None
    subject = git_if_any("log", "-1", "--format=%s", "--end-of-options", commit, "--")
    if subject is None:
        unknown.append(f"the commit {commit[:8]} is not in this repository")
        return None
    return subject.decode().strip()


def _base(unknown: list[str]) -> dict[str, Any]:
    try:
        return flatten(find_recipe(BASE).values)
    except UserError as error:
        unknown.append(f"which parameters differ from the recipe {BASE}: {error}")
        return {}


def _stored(lineage: Lineage, unknown: list[str]) -> tuple[list[Out], Mapping[str, Any]]:
    """The outs with where they are, and the contents of ``SOURCE``, ``DIGESTS``, ``FIGURES``."""
    if not lineage.outs:
        return [], {}
    lock = lineage.files[LOCK].decode()
    try:
        with laid_out({"dvc.yaml": bare_pipeline(lock), LOCK: lock}) as folder:
            not_cached = missing(folder)
            try:
                not_remote = missing_on_remote(folder)
            except UserError as error:
                unknown.append(f"what is on a remote: {error}")
                not_remote = None
            values = read_outs(folder, [SOURCE, DIGESTS, FIGURES])
    except UserError as error:
        unknown.append(f"where the files are: {error}")
        return lineage.outs, {}
    located = [
        replace(
            out,
            in_cache=not lacks(not_cached, out.path),
            on_remote=None if not_remote is None else not lacks(not_remote, out.path),
        )
        for out in lineage.outs
    ]
    return located, values
