"""A full disk is told in one line by every stage, and nothing is half written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.project import STAGES, Project
from imageclf.files import sha256_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Alone with mounts of its own, as root or as a user.
NAMESPACE = ("unshare", "--map-root-user", "--mount")
# On a disk with a copy of the project $1 and $2 bytes free, run the stage $3; then copy it to $4.
SCRIPT = """
disk=$4/disk
mkdir "$disk"
mount -t tmpfs -o size=64m disk "$disk" && cp -a "$1/." "$disk" || exit 9
cd "$disk"
cat /dev/zero > fill 2>/dev/null
truncate --size="-$2" fill
PYTHONPATH=src python "stages/$3.py"
code=$?
rm fill
cp -a . "$4/after"
exit $code
"""
TOLD = re.compile(r"error: .*(the disk .*is full|the tracking database .* cannot be used)")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Project:
    """A project whose stages have run, without DVC."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a disk in a namespace of its own")
    folder = tmp_path_factory.mktemp("project")
    project = Project(folder)
    shutil.copy(migrated, folder)
    for stage in STAGES:
        project.run("env", "PYTHONPATH=src", sys.executable, f"stages/{stage}.py")
    return project


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file that the stages write and DVC keeps."""
    files = [path for name in ("data", "models", "reports") for path in (folder / name).rglob("*")]
    return {str(path.relative_to(folder)): sha256_file(path) for path in files if path.is_file()}


@pytest.mark.parametrize("free", [4096, 40960])
@pytest.mark.parametrize("stage", ["fetch", "transform", "train", "evaluate", "export", "register"])
def test_a_stage_on_a_full_disk(finished: Project, stage: str, free: int, tmp_path: Path) -> None:
    if stage == "train":  # another model than the one that is there
        finished.set("train.learning_rate", f"0.0{free}")
    script = ("sh", "-c", SCRIPT, "sh", str(finished.folder), str(free), stage, str(tmp_path))
    said = finished.run(*NAMESPACE, *script, check=False)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert TOLD.match(errors[0])
    assert "Traceback" not in said
    assert digests(tmp_path / "after") == digests(finished.folder)
