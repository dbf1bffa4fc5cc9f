"""The branch that a runner trains: its newest commit, and the dvc.lock that is pushed to it."""

from pathlib import Path
from typing import NamedTuple

from imageclf.files import UserError
from imageclf.project.folder import LOCK
from imageclf.project.git import GitError, git, remote
from imageclf.team.remote_refs import listed
from imageclf.team.sharing import Tell

AUTHOR = ("-c", "user.name=imageclf runner", "-c", "user.email=imageclf@localhost")


class Branch(NamedTuple):
    """A branch at git's remote: its ref, and its commit when it was followed."""

    ref: str
    commit: str

    @property
    def has_moved(self) -> bool:
        """Whether it has another commit now; raises as ``git.git`` does."""
        return listed(self.ref).get(self.ref, "") != self.commit


def follow_branch() -> Branch | None:
    """Go to the newest commit of the branch; None if it follows no branch of git's remote.

    A dvc.lock that is not committed is discarded: DVC's run cache has its contents.

    Raises:
        UserError: files differ from the commit, or the branch cannot be followed.
    """
    status = ("status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){LOCK}")
    if changed := git(*status).decode().splitlines():
        raise UserError(f"a runner trains what is committed: commit or restore {changed[0][3:]}")
    branch = git("branch", "--show-current").decode().strip()
    merged = git("config", "--default", "", "--", f"branch.{branch}.merge").decode().strip()
    if not branch or not merged:
        return None
    try:
        git("checkout", "--quiet", "HEAD", "--", LOCK)
    except GitError:  # the branch has none
        git("rm", "--quiet", "--cached", "--ignore-unmatch", "--", LOCK)
        Path(LOCK).unlink(missing_ok=True)
    git("pull", "--quiet", "--ff-only")
    return Branch(merged, git("rev-parse", "FETCH_HEAD").decode().strip())


def publish_lock(branch: Branch | None, tell: Tell) -> bool:
    """Commit dvc.lock to the branch, first at git's remote, so that HEAD is never ahead of it.

    Returns whether the branch has it; True if there is no branch.
    """
    if branch is None:
        tell(f"{LOCK} is not committed: HEAD follows no branch of git's remote")
        return True
    if not git("status", "--porcelain", "--", LOCK):
        return True
    git("add", "--", LOCK)
    tree = git("write-tree").decode().strip()
    commit = git(*AUTHOR, "commit-tree", "-p", "HEAD", "-m", "Train", "--", tree).decode().strip()
    try:
        git("push", "--quiet", "--no-verify", "--", remote(), f"{commit}:{branch.ref}")
    except GitError as error:
        git("reset", "--quiet", "--", LOCK)
        tell(f"{LOCK} is not on the branch, type `make runner` again ({error})")
        return False
    git("reset", "--quiet", "--soft", commit, "--")
    tell(f"{LOCK} is on the branch; elsewhere: git pull && make pull")
    return True
