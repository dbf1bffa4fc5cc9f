"""The project's own refs at git's remote: small files that all its clones share.

Git changes a ref at a remote only if it still has the expected value. So a ref can be a lock
between machines.
"""

from collections.abc import Mapping

from imageclf.project.git import Commit, GitError, commit_in, git, remote

ROOT = "refs/imageclf"
# Commits without author and date: the same files give the same commit.
NOBODY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "imageclf"), ("EMAIL", "imageclf"), ("DATE", "@0 +0000"))
}


def listed(pattern: str, timeout: float | None = None) -> dict[str, Commit]:
    """The refs at the remote that match, each with its commit; raises as ``git`` does."""
    lines = git("ls-remote", "--", remote(), pattern, timeout=timeout).decode().splitlines()
    found = {}
    for line in lines:
        name, _, ref = line.partition("\t")
        if (named := commit_in(name)) is None or not ref.startswith(("refs/", "HEAD")):
            raise GitError(f"git's remote answers with {line[:80]!a}")
        found[ref] = named
    return found


def commit(files: Mapping[str, bytes]) -> Commit:
    """Make a commit of the files, on no branch."""
    blobs = [(git("hash-object", "-w", "--stdin", feed=files[name]), name) for name in files]
    tree = b"".join(b"100644 blob %s\t%s\n" % (blob.strip(), name.encode()) for blob, name in blobs)
    root = git("mktree", feed=tree).decode().strip()
    made = git("commit-tree", "-m", "imageclf", "--", root, environment=NOBODY)
    return Commit(made.decode().strip())


def fetch(ref: str, commit: Commit) -> dict[str, bytes]:
    """The files of the commit that a ref of the remote names.

    Raises:
        GitError: the ref names another commit now, or as ``git`` does.
    """
    git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", remote(), ref)
    names = git("ls-tree", "-z", "--name-only", "--end-of-options", commit).decode().split("\0")
    return {
        name: git("cat-file", "--end-of-options", "blob", f"{commit}:{name}")
        for name in names
        if name
    }


def change(ref: str, before: str, after: str, timeout: float | None = None) -> None:
    """Move a ref of the remote from ``before`` to ``after``; "" stands for no ref.

    Raises:
        GitError: it has another value, or cannot be changed.
    """
    options = ("--quiet", "--no-verify", f"--force-with-lease={ref}:{before}")
    git("push", *options, "--", remote(), f"{after}:{ref}", timeout=timeout)
