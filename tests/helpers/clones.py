"""Clones of a small repository of git's."""

import subprocess
from pathlib import Path

IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org")


def git(*arguments: str | Path, at: Path | None = None) -> str:
    command = ["git", *IDENTITY, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=at).stdout


def make_clones(folder: Path, *names: str) -> list[Path]:
    """Clones that follow the branch of a repository with one commit."""
    bare, first = folder / "origin.git", folder / names[0]
    git("init", "--quiet", "--bare", "--initial-branch=main", bare)
    git("clone", "--quiet", bare, first)
    git("switch", "--quiet", "--create", "main", at=first)
    (first / "params.yaml").write_text("seed: 1\n")
    (first / ".gitignore").write_text("/.imageclf/\n")
    git("add", ".", at=first)
    git("commit", "--quiet", "--message", "first", at=first)
    git("push", "--quiet", "--set-upstream", "origin", "main", at=first)
    for name in names[1:]:
        git("clone", "--quiet", bare, folder / name)
    return [folder / name for name in names]
