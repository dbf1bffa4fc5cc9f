"""Sharing: results of one clone of the project are brought to the others.

Files and DVC's run cache go through DVC's default remote. Journals go through git's remote, where
``refs/imageclf/journals/FINGERPRINT`` is a commit with the files of one. A ref of that name in a
clone marks a journal that came from elsewhere.
"""

from collections.abc import Callable
from subprocess import TimeoutExpired

from imageclf.files import UserError
from imageclf.project.dvc import default_remote, dvc_in_terminal
from imageclf.project.git import git, git_if_any
from imageclf.team.lease import Lease
from imageclf.team.remote_refs import ROOT, change, commit, fetch, listed
from imageclf.tracking.journal import Journal, JournalError, journals, unreadable_journals

JOURNALS = f"{ROOT}/journals"
Tell = Callable[[str], None]


def push(tell: Tell, lease: Lease | None = None) -> None:
    """Push this clone's outs, run cache and journals to the remotes. Idempotent.

    ``tell`` is called with a line of text at each step, and ``lease`` is kept alive meanwhile.

    Raises:
        UserError: a remote is missing, or refuses files.
    """
    name = default_remote()
    if not run_dvc("push", "--run-cache", lease=lease):
        raise UserError(f"{name} did not take every file: push again")
    for reason in unreadable_journals():
        tell(f"skipped: {reason}")
    sent = push_journals()
    tell(f"{name} has the files, and git's remote {sent} new journal{'s' * (sent != 1)}")


def pull(tell: Tell) -> None:
    """Pull the journals and the outs in dvc.lock; a UserError if a remote or a file is missing."""
    name = default_remote()
    count = fetch_journals(tell)
    tell(f"{count} new journal{'s' * (count != 1)}")
    if not run_dvc("pull"):
        raise UserError(f"{name} lacks files: push them from the machine that has them")


def run_dvc(*arguments: str, lease: Lease | None = None) -> bool:
    """Run a `dvc` command in the terminal, and keep a lease alive; whether it succeeds.

    Raises:
        LeaseLostError: the lease is lost, and the command was stopped.
    """
    with dvc_in_terminal(*arguments) as process:
        while True:
            try:
                return process.wait(lease.pause if lease else None) == 0
            except TimeoutExpired:
                if lease:
                    lease.beat()


def push_journals() -> int:
    """Push the journals of trainings here; returns how many were new to the remote.

    Raises:
        GitError: git's remote cannot be read or changed.
    """
    there, sent = listed(f"{JOURNALS}/*"), 0
    foreign = git("for-each-ref", "--format=%(refname)", JOURNALS).decode().split()
    for journal in journals():
        ref = f"{JOURNALS}/{journal.fingerprint}"
        if ref in foreign or not journal.tells_of_training or journal.is_training():
            continue
        if there.get(ref) != (ours := commit(journal.files())):
            change(ref, there.get(ref, ""), ours)
            sent += 1
    return sent


def came_from_elsewhere(fingerprint: str) -> bool:
    """Whether the journal of a fingerprint was fetched from git's remote."""
    ref = f"{JOURNALS}/{fingerprint}"
    return git_if_any("show-ref", "--verify", "--quiet", "--", ref) is not None


def fetch_journals(tell: Tell) -> int:
    """Fetch the journals of trainings elsewhere; returns how many there were.

    ``tell`` is called with a line of text for each journal that cannot be read.

    Raises:
        GitError: git's remote cannot be read.
    """
    known = git("for-each-ref", "--format=%(refname) %(objectname)", JOURNALS).decode()
    fetched = 0
    for ref, theirs in listed(f"{JOURNALS}/*").items():
        try:
            journal = Journal(ref.removeprefix(f"{JOURNALS}/"))
            mine = journal.tells_of_training and f"{ref} " not in known
            if mine or f"{ref} {theirs}\n" in known:
                continue
            journal.take(fetch(ref, theirs))
        except JournalError as error:
            tell(f"skipped: {error}")
        else:
            git("update-ref", "--", ref, theirs)
            fetched += 1
    return fetched
