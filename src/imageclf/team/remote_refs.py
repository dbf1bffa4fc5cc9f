"""Refs of the project's own at git's remote: small things that all clones of it share.

However it is reached, a server of git's changes a ref only from the value that it is told. That
makes a ref a lock between machines, and a place for what no cached file may tell.
"""

from collections.abc import Mapping

from imageclf.project.git import Commit, GitError, commit_in, git, remote

ROOT = "refs/imageclf"
# Commits that do not tell who made them and when: the same files are the same commit.
NOBODY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "imageclf"), ("EMAIL", "imageclf"), ("DATE", "@0 +0000"))
}


def listed(pattern: str, timeout: float | None = None) -> dict[str, Commit]:
    """The refs at the remote that a pattern finds, each with its commit; raises as ``git`` does."""
    lines = git("ls-remote", "--", remote(), pattern, timeout=timeout).decode().splitlines()
    found = {}
    for line in lines:
        name, _, ref = line.partition("\t")
        if (named := commit_in(name)) is None or not ref.startswith(("refs/", "HEAD")):
            raise GitError(f"git's remote answers with {line[:80]!a}")
        found[ref] = named
    return found


def commit(files: Mapping[str, bytes]) -> Commit:
    """Put files into a commit of their own, on no branch."""
    blobs = [(git("hash-object", "-w", "--stdin", feed=files[name]), name) for name in files]
    tree = b"".join(b"100644 blob %s\t%s\n" % (blob.strip(), name.encode()) for blob, name in blobs)
    root = git("mktree", feed=tree).decode().strip()
    made = git("commit-tree", "-m", "imageclf", "--", root, environment=NOBODY)
    return Commit(made.decode().strip())


def fetch(ref: str, commit: Commit) -> dict[str, bytes]:
    """The files of the commit that a ref of the remote names.

    Raises:
        GitError: it names another one by now, or as ``git`` does.
    """
    git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", remote(), ref)
    names = git("ls-tree", "-z", "--name-only", "--end-of-options", commit).decode().split("\0")
    return {
        name: git("cat-file", "--end-of-options", "blob", f"{commit}:{name}")
        for name in names
        if name
    }


def change(ref: str, before: str, after: str, timeout: float | None = None) -> None:
    """Let a ref of the remote name ``after``, if it names ``before``; "" is for no such ref.

    Raises:
        GitError: it names something else, or cannot be changed.
    """
    options = ("--quiet", "--no-verify", f"--force-with-lease={ref}:{before}")
    git("push", *options, "--", remote(), f"{after}:{ref}", timeout=timeout)
