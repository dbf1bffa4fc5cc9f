"""Sync: MLflow is brought to agree with the journal, git's commits and DVC's experiments."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from imageclf.files import UserError
from imageclf.lineage.publish import publish
from imageclf.lineage.snapshots import Snapshot, snapshots
from imageclf.project.folder import LOCK
from imageclf.tracking.connection import TrackingError
from imageclf.tracking.journal import Journal, journals, unreadable_journals
from imageclf.tracking.messages import End, FirstBatch, Metrics
from imageclf.tracking.queries import list_runs
from imageclf.tracking.runs import end_abandoned, report


@dataclass
class Summary:
    """The number of runs that agreed already, and the names of the others.

    Those ``skipped`` have a reason; those ``ended`` were RUNNING after the end of their training.
    """

    agreed: int = 0
    updated: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)


# What is brought up to date: the outs of a snapshot, or a training whose model was not registered.
Work = Snapshot | Journal


def sync(everything: bool, watch: Callable[[Sequence[Work]], Iterable[Work]]) -> Summary:
    """Bring MLflow up to date. Runs that agree already cost one request in all.

    Args:
        everything: every model in the journal, a commit or an experiment, and every training that
            failed; otherwise the workspace's model.
        watch: passes the work on, and may show the progress.

    Raises:
        UserError: MLflow cannot be written, or nothing was trained yet.
    """
    summary = Summary(ended=end_abandoned(), skipped=unreadable_journals())
    runs = [run for run in list_runs() if run.is_present]
    published = {run.snapshot for run in runs if run.status == "FINISHED"}
    statuses = {(run.fingerprint, run.status) for run in runs}
    failures = _failures() if everything else []
    found = snapshots(everything, summary.skipped.append)
    work: list[Work] = [
        *(each for each, end in failures if (each.fingerprint, end.status) not in statuses),
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


def _failures() -> list[tuple[Journal, End]]:
    """The journals and ends of trainings that ended without a registered model."""
    unregistered = [each for each in journals() if not (each.folder / LOCK).exists()]
    return [(each, end) for each in unregistered if (end := each.end())]


def _replay(journal: Journal) -> str:
    """Write the messages of a training to MLflow, with their times."""
    record, end = journal.record, journal.end()
    if record is None or end is None:
        raise UserError("it is being trained again")
    points = [each for each in journal.messages() if isinstance(each, Metrics)]
    seen = [FirstBatch(str(journal.first_batch))] if journal.first_batch.exists() else []
    description = record.description.named()
    report(description, [*seen, *points, end])
    return description.name


def _publish(snapshot: Snapshot) -> str:
    if reason := snapshot.contradiction():
        raise UserError(reason)
    return publish(snapshot).run_name
