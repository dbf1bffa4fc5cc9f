"""The journal: what each training said and where it ran, for what no cached file may tell.

It lies in the project's own root, also for a training in one of DVC's temporary folders. Git and
DVC ignore it. ``.imageclf/trained/FINGERPRINT/`` holds

    origin.json     the ``Record``: what describes the run, and how its model was registered
    points.jsonl    what the training said, one ``Metrics`` or ``End`` a line
    first_batch.npz what the network saw first, until its model is registered
    changes.patch   what its source differed from the commit, where it did
    dvc.yaml, params.yaml, dvc.lock   the state that was registered last
    lock            held by the process that trains, and by none once that is dead

so that ``imageclf sync`` can write the run into an empty tracking store, and ``imageclf push`` hand
it on to other clones of the project.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from imageclf.files import UserError, atomic_writer, write_json, write_text
from imageclf.project.folder import PIPELINE, project_root
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
from imageclf.tracking.provenance import Provenance, record_source

JOURNAL = Path(".imageclf/trained")
# In the folder of a training, not in the root: which model was trained there last.
LATEST = Path(".imageclf/latest")
ORIGIN, POINTS, PATCH = "origin.json", "points.jsonl", "changes.patch"
CHECKED = (POINTS, *PIPELINE, ORIGIN)  # the last one makes it a journal
FILES = (PATCH, *CHECKED)


class JournalError(UserError):
    """A journal that holds something else than this version writes; says which, and what."""


@dataclass(frozen=True)
class Record(Checked):
    """What the journal tells of a run.

    Attributes:
        description: of the run.
        registered: when its model was registered first, in milliseconds since 1970; None if never.
        restored: whether the model that was registered last came from a cache.
    """

    description: RunDescription
    registered: Milliseconds | None = None
    restored: bool = False


class Journal:
    """The journal of one fingerprint, in the project of the current folder or another.

    What it holds may have come from another clone, and is checked whenever it is read.

    Raises:
        JournalError: that is no fingerprint, or, from whatever reads, a file holds something else
            than this version writes.
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
        """What is known of the run; None where nothing was trained or registered."""
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
            raise JournalError(f"{self}: {ORIGIN} tells of another training")
        return record

    @property
    def tells_of_training(self) -> bool:
        """Whether it tells where the model was trained, not only how it was registered."""
        return (record := self.record) is not None and record.description.origin.device is not None

    def files(self, names: Iterable[str] = FILES) -> dict[str, bytes]:
        """What it holds, by file name."""
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
        """Hold what the journal of another clone of the project holds.

        Raises:
            JournalError: it cannot be read; this one stays as it is.
        """
        self.check(files)
        for name in FILES:
            if name in files:
                with atomic_writer(self.folder / name) as file:
                    file.write(files[name])
            else:
                (self.folder / name).unlink(missing_ok=True)

    def messages(self) -> list[Metrics | End]:
        """What the training said; the last is its end, unless it goes on or its machine died."""
        return self._messages_in(self._points.read_bytes() if self._points.exists() else b"")

    def _messages_in(self, content: bytes) -> list[Metrics | End]:
        said = []
        lines = content.split(b"\n")[:-1]  # a line that was torn has no end
        for number, line in enumerate(lines, start=1):
            try:
                said.append(decode(line))
            except ValueError:
                raise JournalError(f"{self}: {POINTS}: line {number} is no message") from None
        return [each for each in said if not isinstance(each, FirstBatch)]

    @contextmanager
    def training(self, description: RunDescription, epochs: int) -> Iterator[None]:
        """Held by the process that trains the model, so that others see that it lives.

        Of what an earlier process said, the points of the first ``epochs`` epochs stay: those
        that the checkpoint holds.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        with suppress(Timeout):  # who holds it trains the same model, and shows the same thing
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
        """The end of the training; None while it goes on. Whoever died in silence was killed."""
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
        """Add what the training says. Takes some microseconds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._points.open("a") as file:
            file.write(f"{encode(message)}\n")

    def add_source(self) -> Provenance:
        """Keep the commit in use and what the source differs from it; returns what was added."""
        source = record_source(self.patch)
        if record := self.record:
            origin = record.description.origin.updated(source)
            self._write(replace(record, description=replace(record.description, origin=origin)))
        return source

    def register(
        self, description: RunDescription, state: Mapping[str, str], restored: bool, now: int
    ) -> Record:
        """Keep how a model is registered, and the state of the pipeline: text by file name.

        Where it was trained is told by the training alone, and when it was registered first by
        the first call.
        """
        record, first = self.record, now
        if record:
            origin = record.description.origin
            description = replace(description.following(record.description), origin=origin)
            first = record.registered or now
        for name, text in state.items():
            write_text(self.folder / name, text)
        registered = Record(description, first, restored)
        self._write(registered)
        self.first_batch.unlink(missing_ok=True)  # from now on reports/evaluation has the picture
        return registered

    def _write(self, record: Record) -> None:
        write_json(self._origin, checked(Record).dump_python(record))


def journals() -> list[Journal]:
    """The journal of every model that was trained or registered here, as far as it can be read."""
    return _all_journals()[0]


def unreadable_journals() -> list[str]:
    """A line on each journal that cannot be read, and that all commands pass over."""
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
    """Whether the last training in this folder was that of ``fingerprint``.

    Otherwise the model came from somewhere else: DVC's cache, a remote, another machine.
    """
    return LATEST.exists() and LATEST.read_text() == fingerprint
