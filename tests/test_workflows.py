"""The steps of .github/workflows/train.yml that tell a pull request what changed, run for real.

GitHub itself is not here: its `gh` is a script that keeps what it is given.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.params import ROOT
from helpers.project import Project
from imageclf.files import read_yaml

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
JOBS = read_yaml(ROOT / ".github/workflows/train.yml")["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]
SCRIPTS = {step["name"]: step["run"] for step in STEPS if "name" in step and "run" in step}
GH = """#!/bin/sh
[ "$4" != --edit-last ] || exit 1  # there is no comment yet
echo "$@" > gh.said
"""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_to_a_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)", path.read_text())
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", each) for each in used)


def test_no_token_may_do_more_than_its_job() -> None:
    assert read_yaml(ROOT / ".github/workflows/train.yml")["permissions"] == {}
    assert {name: job["permissions"] for name, job in JOBS.items()} == {
        "train": {"contents": "write"},
        "tell": {"pull-requests": "write"},
    }
    assert not any("checkout" in step.get("uses", "") for step in JOBS["tell"]["steps"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pull_request_is_told_what_changed(tmp_path: Path, migrated: Path) -> None:
    project = Project(tmp_path / "project")
    shutil.copy(migrated, project.folder)
    project.set("train.epochs", "1")
    project.run("dvc", "repro", "evaluate")
    project.commit("base")
    project.run("git", "update-ref", "refs/remotes/origin/main", "HEAD")
    project.set("train.epochs", "2")
    project.run("dvc", "repro", "evaluate")
    (project.folder / ".venv").symlink_to(sys.prefix)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "gh").write_text(GH)
    (programs / "gh").chmod(0o755)

    given = {"BASE": "origin/main", "NUMBER": "7", "RUN": "https://example.org/run"}
    for name in ("Compare with the base", "Post"):
        subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", SCRIPTS[name]],
            cwd=project.folder,
            env=project.environment | given | {"PATH": f"{programs}:{project.environment['PATH']}"},
            check=True,
        )
    said = (project.folder / "dvc_plots/changes.md").read_text()
    assert "### What changed against origin/main" in said
    assert re.search(r"train.epochs +\| 1 +\| 2 ", said)
    assert re.search(r"reports/metrics.json \| accuracy +\| 0.\d+ +\| 0.\d+ ", said)
    assert "(https://example.org/run#artifacts)" in said
    page = (project.folder / "dvc_plots/index.html").read_text()
    assert "origin/main" in page
    assert "workspace" in page
    (last,) = (project.folder / "gh.said").read_text().splitlines()
    assert last == "pr comment 7 --body-file dvc_plots/changes.md"
