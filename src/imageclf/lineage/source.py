"""The source that a rebuild runs: its author, its patch, and whether it may run unasked."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from tempfile import TemporaryDirectory

from imageclf.files import UserError
from imageclf.lineage.find import Lineage
from imageclf.project.git import Commit, GitError, git, git_if_any
from imageclf.team.sharing import came_from_elsewhere
from imageclf.text import printable
from imageclf.tracking.journal import PATCH
from imageclf.tracking.patch import split_patch

REGULAR = {"100644", "100755", "000000"}  # git's modes of files and of a deleted file


@dataclass(frozen=True)
class Source:
    """The source of a training.

    Attributes:
        author: of the commit, and its subject.
        origin: of the journal or run that names the commit and holds the patch.
        changed: the files that the patch changes, such as "M src/imageclf/params.py".
        left_out: the files that differed too and are not in the patch, each with the reason.
        is_own: whether it is a commit that was trained in this clone, without a patch.
    """

    commit: Commit
    author: str
    origin: str
    changed: list[str]
    left_out: list[str]
    is_own: bool


def source_of(lineage: Lineage) -> Source:
    """The source that a rebuild of a model would run.

    Raises:
        UserError: the commit is unknown or not here, or the patch does not apply or changes
            something outside of the project's folder.
    """
    commit = lineage.provenance.commit
    if commit is None:
        raise UserError("it is not known from which commit it was trained")
    shown = ("log", "-1", "--format=%an <%ae>: %s", "--end-of-options", commit, "--")
    author = git_if_any(*shown)
    if author is None:
        raise UserError(f"the commit {commit} is not in this repository: fetch it first")
    left_out, patch = split_patch(lineage.files.get(PATCH, b""))
    here = lineage.record is not None and not came_from_elsewhere(lineage.fingerprint)
    return Source(
        commit=commit,
        author=printable(author.decode(errors="replace").strip()),
        origin=_origin(lineage, here),
        changed=_changes(commit, patch) if patch else [],
        left_out=[printable(name) for name in left_out],
        is_own=here and not patch,
    )


def _origin(lineage: Lineage, here: bool) -> str:
    if here:
        return "the journal of this clone"
    return "a journal pulled from git's remote" if lineage.record else "its run in MLflow"


def _changes(commit: Commit, patch: bytes) -> list[str]:
    """What a patch changes: git applies it in a temporary index and object directory."""
    root = git("rev-parse", "--show-toplevel").decode().rstrip("\n")
    prefix = git("rev-parse", "--show-prefix").decode().rstrip("\n")
    objects = git("rev-parse", "--path-format=absolute", "--git-path", "objects").decode()
    with TemporaryDirectory() as folder:
        apart = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects.rstrip("\n"),
        }
        apply = ("apply", "--cached", "--whitespace=nowarn")
        compare = ("diff-index", "--cached", "--raw", "-z", "--no-renames", commit, "--")
        try:
            git("-C", root, "read-tree", commit, environment=apart)
            git("-C", root, *apply, feed=patch, environment=apart)
        except GitError as error:
            raise UserError(f"{PATCH} does not fit the commit {commit}: {error}") from None
        said = git("-C", root, *compare, environment=apart).decode(errors="replace").split("\0")
    changed = []
    for heading, path in zip(said[::2], said[1::2], strict=False):
        _, mode, *_, status = heading.split()
        if mode not in REGULAR or not _is_inside(path, prefix):
            raise UserError(f"{PATCH} is refused: {path!a} is no file of the project's folder")
        changed.append(f"{status} {printable(path)}")
    return changed


def _is_inside(path: str, prefix: str) -> bool:
    parts = {part.lower() for part in PurePosixPath(path).parts}
    return path.startswith(prefix) and not parts & {"..", "/", ".git"}
