"""Sharing: what one clone of the project computed, the others have.

Files and DVC's run cache travel through DVC's default remote. The journal, which tells where each
model was trained and how fast, travels through git's: ``refs/imageclf/journals/FINGERPRINT`` there
is a commit with its files. A ref of that name in a clone says that the journal came from elsewhere.
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
    """Give the remotes what this clone has: outs, run cache and journals. Idempotent.

    Args:
        tell: called with a line of text on what happens.
        lease: to keep alive meanwhile.

    Raises:
        UserError: a remote is missing, or does not take all of it.
    """
    name = default_remote()
    if not run_dvc("push", "--run-cache", lease=lease):
        raise UserError(f"{name} did not take everything; when it does again, push again")
    for reason in unreadable_journals():
        tell(f"skipped: {reason}")
    sent = push_journals()
    tell(f"{name} has the files, and git's remote {sent} new journal{'s' * (sent != 1)}")


def pull(tell: Tell) -> None:
    """Get the journals, and the outs that dvc.lock names.

    Raises:
        UserError: a remote is missing, or does not have all of it.
    """
    name = default_remote()
    count = fetch_journals(tell)
    tell(f"{count} new journal{'s' * (count != 1)}")
    if not run_dvc("pull"):
        raise UserError(f"{name} does not have everything: who computed it has to push it")


def run_dvc(*arguments: str, lease: Lease | None = None) -> bool:
    """Run a `dvc` command in the terminal, and keep a lease alive; whether it succeeds.

    Raises:
        LeaseLostError: the lease is lost. The command was stopped.
    """
    with dvc_in_terminal(*arguments) as process:
        while True:
            try:
                return process.wait(lease.pause if lease else None) == 0
            except TimeoutExpired:
                if lease:
                    lease.beat()


def push_journals() -> int:
    """Hand on the journals of what was trained here; returns how many were new to the remote.

    Raises:
        GitError: git's remote cannot be asked or changed.
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
    """Get the journals of what was trained elsewhere and not here; returns how many there were.

    Args:
        tell: called with a line of text on each journal, there or here, that cannot be read.

    Raises:
        GitError: git's remote cannot be asked.
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
