"""Snapshots: states of the project after `dvc repro`.

A snapshot is dvc.yaml, params.yaml and dvc.lock. The workspace has one, the journal one for each
registered model, and git one for each commit and DVC experiment. From a snapshot, DVC restores the
outs into a temporary folder.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from imageclf.files import UserError, digest_of, parse_yaml, read_yaml
from imageclf.params import flatten
from imageclf.project.dvc import dvc, has_remotes, laid_out, reason_of
from imageclf.project.folder import CLASSIFIER, DVC_YAML, LOCK, PARAMS, PIPELINE
from imageclf.project.git import Commit, commit_in, git_if_any
from imageclf.project.lock import LockedStage, locked_stages
from imageclf.tracking.journal import Record, journals
from imageclf.tracking.messages import now_ms
from imageclf.tracking.provenance import Provenance

Skip = Callable[[str], object]
MODEL = str(CLASSIFIER)
# DVC writes its entry after it ran, so the dvc.lock in MLflow and the journal has none.
REGISTER = "register"
REGISTER_ENTRY = re.compile(rf"^  {REGISTER}:\n(?:    .*\n)*", re.MULTILINE)
# The md5s of source files: they are not needed here, and would take most of the time to parse.
SOURCES = re.compile(r"^    - path: (?:src|stages)/.*\n(?:      .*\n)*", re.MULTILINE)
# Without stashes and DVC's temporary refs.
REFS = ("HEAD", "--branches", "--tags", "--remotes", "--glob=refs/exps/[0-9a-f][0-9a-f]/*")
EXPERIMENT_REF = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)")


@dataclass(frozen=True)
class Snapshot:
    """One state of the project.

    Attributes:
        files: the texts of ``PIPELINE``, by name.
        time: milliseconds since 1970.
        origin: the commit that holds it, if any.
        experiment: the name of the DVC experiment that made it.
        record: of the journal, if it is from there.
    """

    label: str
    files: Mapping[str, str]
    time: int = field(default_factory=now_ms)
    origin: Provenance = field(default_factory=Provenance)
    experiment: str | None = None
    record: Record | None = None

    def __str__(self) -> str:
        return self.label

    @cached_property
    def stages(self) -> dict[str, LockedStage]:
        """The stages in dvc.lock, by name."""
        return locked_stages(SOURCES.sub("", self.files[LOCK]))

    @cached_property
    def outs(self) -> dict[str, str]:
        """The md5 of every out, by its path."""
        return {out.path: out.md5 for stage in self.stages.values() for out in stage.outs}

    @cached_property
    def params(self) -> dict[str, Any]:
        """Every parameter but those of ``runtime``, by dotted path."""
        return params_in(self.files[PARAMS])

    @property
    def model(self) -> str | None:
        """The md5 of the model; None before there is one."""
        return self.outs.get(MODEL)

    @property
    def digest(self) -> str:
        """The sha256 over everything of this state that is written to MLflow."""
        return digest_of({"params": self.params, "outs": self.outs})

    def contradiction(self) -> str | None:
        """Why these files are not the state after `dvc repro`; None if they are."""
        for name, stage in self.stages.items():
            if name == REGISTER:
                continue
            for path, value in flatten(stage.params.get(PARAMS, {})).items():
                if self.params.get(path) != value:
                    return f"{name} has not run yet with {path}: {self.params.get(path)}"
            for dep in stage.deps:
                if self.outs.get(dep.path, dep.md5) != dep.md5:
                    return f"{name} has not run yet with the {dep.path} that is there now"
        return None


def params_in(text: str | bytes) -> dict[str, Any]:
    """Parameters in a params.yaml except ``runtime``, by dotted path; a UserError if invalid."""
    values = parse_yaml(text, PARAMS)
    try:
        json.dumps(values, allow_nan=False)
        flat = flatten(values)
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{PARAMS} is no file of parameters") from None
    return {key: value for key, value in flat.items() if not key.startswith("runtime.")}


def pipeline_files(folder: Path) -> dict[str, str]:
    """The texts of the files of ``PIPELINE`` in a folder, by name; dvc.lock may be missing."""
    paths = [folder / name for name in PIPELINE]
    return _without_register(
        {path.name: path.read_text("utf-8") for path in paths if path.exists()}
    )


def _without_register(files: dict[str, str]) -> dict[str, str]:
    return files | {LOCK: REGISTER_ENTRY.sub("", files[LOCK])} if LOCK in files else files


def snapshots(everything: bool, skip: Skip) -> list[Snapshot]:
    """The newest snapshot of every model, the oldest model first.

    Args:
        everything: the models of all commits, all experiments and the journal; otherwise only
            the workspace's.
        skip: called with a line of text for each journal that is skipped.

    Raises:
        UserError: there is no dvc.lock in the workspace, or a damaged one.
    """
    workspace = _from_workspace()
    if not everything and workspace is None:
        raise UserError("nothing was trained here yet: type `dvc repro`, or add --all")
    here = [workspace] if workspace else []
    by_model: dict[str, list[Snapshot]] = {}
    for each in [*here, *_from_journal(skip), *(_from_git() if everything else ())]:
        if each.model and (everything or each.model == here[0].model):
            by_model.setdefault(each.model, []).append(each)
    return sorted(map(_best, by_model.values()), key=lambda snapshot: snapshot.time)


def _best(same: Sequence[Snapshot]) -> Snapshot:
    """The first consistent snapshot of one model, completed from the others."""
    chosen = next((each for each in same if not each.contradiction()), same[0])
    return replace(
        chosen,
        time=min(each.time for each in same),
        origin=next((each.origin for each in same if each.origin.commit), Provenance()),
        experiment=next((each.experiment for each in same if each.experiment), None),
    )


def _from_workspace() -> Snapshot | None:
    files = pipeline_files(Path())
    found = Snapshot("the workspace", files) if len(files) == len(PIPELINE) else None
    return found if found and found.model else None


def _from_journal(skip: Skip) -> Iterator[Snapshot]:
    for journal in journals():
        record, files = journal.record, pipeline_files(journal.folder)
        if record and record.registered and len(files) == len(PIPELINE):
            found = Snapshot(str(journal), files, record.registered, record=record)
            try:
                found.digest  # noqa: B018 - it reads params.yaml and dvc.lock
                found.contradiction()
            except UserError as error:  # files of another clone may not parse
                skip(f"{journal}: {error}")
            else:
                yield found


def _from_git() -> Iterator[Snapshot]:
    """Snapshots of commits and experiments, the newest first; none without git."""
    refs = _lines("for-each-ref", "refs/exps", "--format=%(objectname) %(refname)")
    names = {
        commit: match[1]
        for commit, _, ref in (line.partition(" ") for line in refs)
        if (match := EXPERIMENT_REF.fullmatch(ref))
    }
    log = _lines("log", "--full-history", "--format=%H %ct", *REFS, "--", *PIPELINE)
    commits = [line.split() for line in log]
    texts = _texts(f"{commit}:./{name}" for commit, _ in commits for name in PIPELINE)
    for commit, seconds in commits:
        files = {name: text for name in PIPELINE if (text := next(texts)) is not None}
        if len(files) < len(PIPELINE):
            continue
        experiment = names.get(commit)
        found = Snapshot(
            f"the experiment {experiment}" if experiment else f"the commit {commit[:7]}",
            _without_register(files),
            int(seconds) * 1000,
            Provenance(commit_in(commit), dirty=False),
            experiment,
        )
        with suppress(UserError):  # a commit with a damaged dvc.lock
            found.contradiction()
            yield found


def committed(commit: Commit) -> Snapshot | None:
    """The snapshot that a commit holds; None if it holds none."""
    texts = _texts(f"{commit}:./{name}" for name in PIPELINE)
    files = {name: text for name, text in zip(PIPELINE, texts, strict=True) if text is not None}
    if len(files) < len(PIPELINE):
        return None
    return Snapshot(f"the commit {commit[:7]}", _without_register(files))


def _lines(*arguments: str) -> list[str]:
    return (git_if_any(*arguments) or b"").decode().splitlines()


def _texts(names: Iterable[str]) -> Iterator[str | None]:
    """The text of each file in git, by names such as ``COMMIT:./dvc.lock``; None if missing."""
    feed = "".join(f"{name}\n" for name in names).encode()
    answer = BytesIO(git_if_any("cat-file", "--batch", feed=feed) or b"")
    while heading := answer.readline():
        if heading.endswith(b" missing\n"):
            yield None
        else:
            size = int(heading.split()[-1])
            yield answer.read(size + 1)[:size].decode()


@contextmanager
def checked_out(snapshot: Snapshot) -> Iterator[Path]:
    """A temporary folder with the files of a snapshot that the register stage needs.

    Raises:
        UserError: some are neither in DVC's cache nor on a remote.
    """
    stage = read_yaml(Path(DVC_YAML))["stages"][REGISTER]
    targets = [dep for dep in stage["deps"] if not dep.startswith(("src/", "stages/"))]
    with laid_out(snapshot.files) as folder:
        done = dvc("checkout", "--", *targets, at=folder)
        if done.returncode and has_remotes():
            done = dvc("pull", "--", *targets, at=folder)
        if done.returncode:
            lacking = [path for path in targets if path in done.stderr]
            reason = f"DVC's cache and remotes lack {', '.join(lacking)}"
            raise UserError(reason if lacking else reason_of(done))
        yield folder
