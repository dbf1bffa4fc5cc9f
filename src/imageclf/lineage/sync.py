"""Syncing: MLflow agrees again with the journal, with git's commits and with DVC's experiments."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from imageclf.files import UserError
from imageclf.lineage.publish import publish
from imageclf.lineage.snapshots import Snapshot, snapshots
from imageclf.project.folder import LOCK
from imageclf.tracking.connection import TrackingError
from imageclf.tracking.journal import Journal, journals, unreadable_journals
from imageclf.tracking.messages import FirstBatch, Metrics
from imageclf.tracking.queries import list_runs
from imageclf.tracking.runs import SNAPSHOT, end_abandoned, report


@dataclass
class Summary:
    """What a sync found: how many runs agreed already, and which others there were.

    Attributes:
        agreed: number of runs.
        updated: names of runs that agree now.
        skipped: what stayed as it is, with the reason.
        ended: names of runs that seemed to go on though their training had died.
    """

    agreed: int = 0
    updated: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)


# What is brought up to date: the outs of a snapshot, or a training that never got so far.
Work = Snapshot | Journal


def sync(everything: bool, watch: Callable[[Sequence[Work]], Iterable[Work]]) -> Summary:
    """Bring MLflow up to date. What agrees already costs one question in all.

    Args:
        everything: every model that the journal, a commit or an experiment tells of, and every
            training that came to nothing; otherwise the workspace's model.
        watch: passes the work on, and may show how it goes.

    Raises:
        UserError: MLflow cannot be told, or nothing was trained yet.
    """
    summary = Summary(ended=end_abandoned(), skipped=unreadable_journals())
    runs = list_runs()
    published = {run.tags.get(SNAPSHOT) for run in runs if run.status == "FINISHED"}
    statuses = {(run.fingerprint, run.status) for run in runs}
    failures = _failures() if everything else []
    found = snapshots(everything, summary.skipped.append)
    work: list[Work] = [
        *(each for each in failures if (each.fingerprint, _status(each)) not in statuses),
        *(each for each in found if each.digest not in published),
    ]
    summary.agreed = len(failures) + len(found) - len(work)
    for each in watch(work):
        try:
            name = _replay(each) if isinstance(each, Journal) else _publish(each)
        except TrackingError:
            raise
        except UserError as error:
            summary.skipped.append(f"{each}: {error}")
        else:
            summary.updated.append(name)
    return summary


def _failures() -> list[Journal]:
    """The journals of trainings that ended, and whose model was never registered."""
    return [each for each in journals() if each.end() and not (each.folder / LOCK).exists()]


def _status(journal: Journal) -> str | None:
    end = journal.end()
    return end.status if end else None


def _replay(journal: Journal) -> str:
    """Tell MLflow what the training said, at the times when it did."""
    record, end = journal.record, journal.end()
    if record is None or end is None:
        raise UserError("it is being trained again")
    points = [each for each in journal.messages() if isinstance(each, Metrics)]
    seen = [FirstBatch(str(journal.first_batch))] if journal.first_batch.exists() else []
    report(record.description, [*seen, *points, end])
    return record.description.name


def _publish(snapshot: Snapshot) -> str:
    if reason := snapshot.contradiction():
        raise UserError(reason)
    return publish(snapshot).run_name
