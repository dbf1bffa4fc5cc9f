"""The one way to call git, and the type of its commits."""

import os
import re
import subprocess
from collections.abc import Mapping
from typing import NewType

from imageclf.files import UserError

# The full hash of a commit: git cannot mistake it for an option, a path or an expression.
Commit = NewType("Commit", str)
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
IN_NONE = "not a git repository"  # in the words of git and of DVC
NO_REPOSITORY = (
    "the project is in no git repository, as after the download of a ZIP file: clone it, or type "
    "`git init && git add . && git commit -m begin` here"
)
UNREACHED = "fatal: Could not read from remote repository"


class GitError(UserError):
    """A git command failed; the message is git's own."""


def commit_in(text: str) -> Commit | None:
    """The text as a commit if it is a full hash: 40 digits, or 64 (sha256); else None."""
    return Commit(text) if COMMIT.fullmatch(text) else None


def git(
    *arguments: str,
    feed: bytes = b"",
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Run git, with ``feed`` as its input, and return its output.

    Raises:
        GitError: it fails, or takes longer than ``timeout`` seconds.
    """
    try:
        done = subprocess.run(  # noqa: S603 - no shell
            ["git", "--no-optional-locks", *arguments],  # noqa: S607 - the user's git
            input=feed,
            capture_output=True,
            check=False,
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise GitError(f"`git {arguments[0]}` takes too long") from None
    except OSError as error:
        raise GitError(f"git cannot be run ({error.strerror})") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace")
        raise GitError(
            NO_REPOSITORY if IN_NONE in said else f"`git {arguments[0]}`: {_reason(said)}"
        )
    return done.stdout


def git_if_any(
    *arguments: str, feed: bytes = b"", environment: Mapping[str, str] | None = None
) -> bytes | None:
    """The output of git; None where it fails, as without a repository or a commit."""
    try:
        return git(*arguments, feed=feed, environment=environment)
    except GitError:
        return None


def check_repository() -> None:
    """Check that the current folder is in a git repository, which DVC needs; else a GitError."""
    git("rev-parse", "--git-dir")


def _reason(said: str) -> str:
    """The most telling line; where git cannot reach its remote, the first one, which is ssh's."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "!", "remote:"))]
    if telling and not telling[0].startswith(UNREACHED):
        return telling[0]
    return (lines or ["it fails"])[0]


def remote() -> str:
    """The remote that the branch follows, or else ``origin``; a GitError if there is none."""
    names = git("remote").decode().split()
    branch = git("branch", "--show-current").decode().strip()
    followed = (
        git("config", "--default", "origin", "--", f"branch.{branch}.remote").decode().strip()
    )
    if followed not in names:
        raise GitError("git has no remote: clone the project, or `git remote add origin URL`")
    return followed
