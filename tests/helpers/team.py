"""Clones of one project, a repository of git's and a remote of DVC's between them."""

import json
import shutil
from pathlib import Path
from typing import Any

from helpers.project import Project
from helpers.ssh_server import SshServer


class Clone(Project):
    """A clone, with an empty tracking store of its own."""

    def __init__(self, folder: Path, origin: str, store: Path, server: dict[str, str]) -> None:
        self.folder, self.server = folder, server
        self.run("git", "clone", "--quiet", origin, str(folder), at=folder.parent)
        shutil.copy(store, folder / "mlflow.db")


class Team:
    """A laptop, and what it takes to have others.

    Attributes:
        laptop: a copy of a project, with its cache.
        remote: the options of DVC's default remote.
    """

    def __init__(
        self, folder: Path, project: Project, ssh: SshServer, remote: dict[str, str], store: Path
    ) -> None:
        self.folder, self.remote, self._store = folder, remote, store
        self.server = {"GIT_SSH_COMMAND": " ".join(("ssh", *ssh.options()))}
        self.origin = f"ssh://{ssh.user}@127.0.0.1{folder}/origin.git"
        self.laptop = project.copy(folder / "laptop")
        self.laptop.server = self.server
        shutil.copy(store, self.laptop.folder)
        self.laptop.run("git", "init", "--quiet", "--bare", str(folder / "origin.git"), at=folder)
        self.laptop.run("git", "remote", "add", "origin", self.origin)
        self.configure(self.laptop)
        self.laptop.run("git", "push", "--quiet", "--set-upstream", "origin", "HEAD")

    def configure(self, project: Project, **others: str) -> None:
        """Say in .dvc/config where the remote is."""
        path = project.folder / ".dvc/config"
        lines = ["[core]", "analytics = false", "check_update = false", "remote = store"]
        lines += [
            "['remote \"store\"']",
            *(f"{k} = {v}" for k, v in (self.remote | others).items()),
        ]
        path.write_text("\n".join(lines) + "\n")
        project.commit("the remote")

    def clone(self, name: str) -> Clone:
        return Clone(self.folder / name, self.origin, self._store, self.server)

    def refs(self, kind: str) -> list[str]:
        """The project's own refs of a kind, in the repository."""
        refs = self.laptop.run("git", "ls-remote", "origin", f"refs/imageclf/{kind}/*")
        return [line.split("/")[-1] for line in refs.splitlines()]


def origin_of(project: Project) -> dict[str, Any]:
    """What the one journal of a project tells of where its model was trained."""
    (path,) = (project.folder / ".imageclf/trained").glob("*/origin.json")
    return dict(json.loads(path.read_text())["description"]["origin"])
