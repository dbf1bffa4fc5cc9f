"""The journal: what each training reported and where it ran, which no cached file may contain.

It is in the project's root, also for a training in one of DVC's temporary folders. Git and DVC
ignore it. ``.imageclf/trained/FINGERPRINT/`` holds

    origin.json     the ``Record``: the description of the run, and how its model was registered
    points.jsonl    what the training reported, one ``Metrics`` or ``End`` a line
    first_batch.npz the first batch that the network saw, until the model is registered
    changes.patch   the patch from the commit to the source, if they differ
    dvc.yaml, params.yaml, dvc.lock   the state that was registered last
    lock            held by the process that trains

From it ``imageclf sync`` writes the run into an empty tracking store, and ``imageclf push`` gives
it to other clones of the project.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from imageclf.files import UserError, atomic_writer, read_json, write_json, write_text
from imageclf.project.folder import LOCK, PIPELINE, project_root
from imageclf.tracking.messages import (
    FINGERPRINT,
    Checked,
    End,
    FirstBatch,
    Metrics,
    Milliseconds,
    RunDescription,
    checked,
    decode,
    encode,
)
from imageclf.tracking.patch import record_source
from imageclf.tracking.provenance import Provenance
from imageclf.tracking.secret_scan import without_secret_comments

JOURNAL = Path(".imageclf/trained")
# In the folder of a training, which may not be the root: the model that was trained there last.
LATEST = Path(".imageclf/latest")
REGISTERED = Path(".imageclf/registered.json")  # likewise: how the model was registered last
ORIGIN, POINTS, PATCH = "origin.json", "points.jsonl", "changes.patch"
CHECKED = (POINTS, *PIPELINE, ORIGIN)  # ORIGIN is written last: it makes the folder a journal
FILES = (PATCH, *CHECKED)


class JournalError(UserError):
    """A journal that this version cannot read; the message names it and the fault."""


@dataclass(frozen=True)
class Record(Checked):
    """The journal's record of a run.

    Attributes:
        description: of the run.
        registered: when its model was first registered, in milliseconds since 1970; None if never.
        restored: whether the model came from a cache when it was last registered.
    """

    description: RunDescription
    registered: Milliseconds | None = None
    restored: bool = False


class Journal:
    """The journal of one fingerprint, in the current project or another.

    It may have come from another clone, so every method that reads checks what it reads.

    Raises:
        JournalError: it is no fingerprint, or a file cannot be read.
    """

    def __init__(self, fingerprint: str, root: Path | None = None) -> None:
        if not FINGERPRINT.fullmatch(fingerprint):
            raise JournalError(f"{fingerprint!a} is no fingerprint")
        self.fingerprint = fingerprint
        self.folder = (root or project_root()) / JOURNAL / fingerprint
        self.patch = self.folder / PATCH
        self.first_batch = self.folder / "first_batch.npz"
        self._origin, self._points = self.folder / ORIGIN, self.folder / POINTS

    def __str__(self) -> str:
        return f"the training {self.fingerprint[:8]}"

    @property
    def record(self) -> Record | None:
        """The record of the run; None if nothing was trained or registered."""
        if not self._origin.exists():
            return None
        return self._record_in(self._origin.read_bytes())

    def _record_in(self, content: bytes) -> Record:
        try:
            record: Record = checked(Record).validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = "".join(f"{part!a}: " for part in first["loc"])
            raise JournalError(f"{self}: {ORIGIN}: {place}{first['msg']}") from None
        told = record.description
        if {told.fingerprint, told.tags.get("fingerprint", told.fingerprint)} != {self.fingerprint}:
            raise JournalError(f"{self}: {ORIGIN} is of another training")
        return record

    @property
    def tells_of_training(self) -> bool:
        """Whether it records where the model was trained, not only how it was registered."""
        return (record := self.record) is not None and record.description.origin.device is not None

    def files(self, names: Iterable[str] = FILES) -> dict[str, bytes]:
        """The contents of its files, by name."""
        paths = [self.folder / name for name in names]
        return {path.name: path.read_bytes() for path in paths if path.exists()}

    def check(self, files: Mapping[str, bytes]) -> None:
        """Check the files of a journal of this fingerprint, of this clone or another.

        Raises:
            JournalError: one of them cannot be read.
        """
        if ORIGIN not in files:
            raise JournalError(f"{self}: {ORIGIN} is missing")
        self._record_in(files[ORIGIN])
        self._messages_in(files.get(POINTS, b""))
        for name in PIPELINE:
            try:
                files.get(name, b"").decode()
            except UnicodeDecodeError:
                raise JournalError(f"{self}: {name} is not text") from None

    def take(self, files: Mapping[str, bytes]) -> None:
        """Replace the files by those from another clone of the project.

        Raises:
            JournalError: they cannot be read; this journal stays as it is.
        """
        self.check(files)
        for name in FILES:
            if name in files:
                with atomic_writer(self.folder / name) as file:
                    file.write(files[name])
            else:
                (self.folder / name).unlink(missing_ok=True)

    def messages(self) -> list[Metrics | End]:
        """What the training reported; the last is its end, unless it runs or its machine died."""
        return self._messages_in(self._points.read_bytes() if self._points.exists() else b"")

    def _messages_in(self, content: bytes) -> list[Metrics | End]:
        said = []
        lines = content.split(b"\n")[:-1]  # an incomplete last line is dropped
        for number, line in enumerate(lines, start=1):
            try:
                said.append(decode(line))
            except ValueError:
                raise JournalError(f"{self}: {POINTS}: line {number} is no message") from None
        return [each for each in said if not isinstance(each, FirstBatch)]

    @contextmanager
    def training(self, description: RunDescription, epochs: int) -> Iterator[None]:
        """Hold the lock while the block trains the model.

        Of the points that an earlier process reported, those of the first ``epochs`` epochs stay:
        the epochs in the checkpoint.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        with suppress(Timeout):  # another process trains the same model, with the same results
            lock.acquire(timeout=1)
        kept = [each for each in self.messages() if isinstance(each, Metrics)]
        kept = [each for each in kept if each.step <= epochs]
        write_text(self._points, "".join(f"{encode(each)}\n" for each in kept))
        record = self.record
        if record:
            started = record.description.started if kept else description.started
            description = replace(description.following(record.description), started=started)
        self._write(replace(record or Record(description), description=description))
        try:
            yield
        finally:
            lock.release()

    def end(self) -> End | None:
        """The end of the training: KILLED if it reported none; None while it runs."""
        if self.is_training() or not (record := self.record):
            return None
        last = (self.messages() or [Metrics(0, {}, record.description.started)])[-1]
        return last if isinstance(last, End) else End("KILLED", last.time)

    def is_training(self) -> bool:
        """Whether a process of this machine trains the model now."""
        try:
            with FileLock(self.folder / "lock", timeout=0):
                return False
        except Timeout:
            return True

    def say(self, message: Metrics | End) -> None:
        """Add a message of the training. Takes some microseconds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._points.open("a", encoding="utf-8") as file:
            file.write(f"{encode(message)}\n")

    def add_source(self) -> Provenance:
        """Record the commit and the patch to the source; returns what was added."""
        source = record_source(self.patch)
        if record := self.record:
            origin = record.description.origin.updated(source)
            self._write(replace(record, description=replace(record.description, origin=origin)))
        return source

    def register(
        self, description: RunDescription, state: Mapping[str, str], restored: bool, now: int
    ) -> Record:
        """Record that a model is registered, with the ``state`` of the pipeline: text by file name.

        The origin stays that of the training, and ``registered`` that of the first call. Comments
        that seem to hold secrets are not kept.

        Raises:
            UserError: a value in params.yaml or dvc.yaml seems to be a secret.
        """
        record, first = self.record, now
        if record:
            origin = record.description.origin
            description = replace(description.following(record.description), origin=origin)
            first = record.registered or now
        kept = {
            name: text if name == LOCK else without_secret_comments(name, text)
            for name, text in state.items()
        }
        for name, text in kept.items():
            write_text(self.folder / name, text)
        registered = Record(description, first, restored)
        self._write(registered)
        self.first_batch.unlink(missing_ok=True)  # reports/evaluation has the figure now
        return registered

    def _write(self, record: Record) -> None:
        write_json(self._origin, checked(Record).dump_python(record))


def journals() -> list[Journal]:
    """Every readable journal of a model that was trained or registered here."""
    return _all_journals()[0]


def unreadable_journals() -> list[str]:
    """The fault of each journal that cannot be read, and that all commands skip."""
    return _all_journals()[1]


def _all_journals() -> tuple[list[Journal], list[str]]:
    found, faults = [], []
    for path in sorted((project_root() / JOURNAL).glob(f"*/{ORIGIN}")):
        try:
            journal = Journal(path.parent.name)
            journal.check(journal.files(CHECKED))
        except JournalError as error:
            faults.append(str(error))
        else:
            found.append(journal)
    return found, faults


def trained_here(fingerprint: str) -> bool:
    """Whether this model was trained here last, and is not from a cache or a remote."""
    return LATEST.exists() and LATEST.read_text("utf-8") == fingerprint


def keep_registration(
    fingerprint: str, name: str, version: str, decision: Mapping[str, Any]
) -> None:
    """Keep how the model in the current folder was registered, for `imageclf summary`."""
    known = {"fingerprint": fingerprint, "name": name, "version": version}
    write_json(REGISTERED, {**known, **decision})


def last_registration(fingerprint: str) -> dict[str, Any] | None:
    """How a model was registered, if it is the one that was registered last in this folder."""
    found: dict[str, Any] = read_json(REGISTERED) if REGISTERED.exists() else {}
    return found if found.get("fingerprint") == fingerprint else None
