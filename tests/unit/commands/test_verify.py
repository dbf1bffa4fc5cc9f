import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers.descriptions import FINGERPRINT
from helpers.files import flip
from helpers.tracked import keep
from imageclf.cli import main
from imageclf.project import dvc as dvc_module
from imageclf.project.dvc import dvc
from imageclf.project.integrity import Copy, copies_of
from imageclf.project.lock import recorded_outs

STAGES = {
    "one": {
        "cmd": "mkdir -p folder && echo one > folder/a && echo two > folder/b",
        "outs": ["folder"],
    },
    "two": {"cmd": "echo three > 'a file'", "outs": ["a file"]},
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project whose stages ran."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "dvc.yaml").write_text(json.dumps({"stages": STAGES}))
    for arguments in (("init", "--no-scm", "--quiet"), ("repro", "--quiet")):
        assert dvc(*arguments, at=folder).returncode == 0
    return folder


@pytest.fixture
def made(template: Path, project: Path) -> Path:
    """A copy of it, the current folder."""
    shutil.copytree(template, project, dirs_exist_ok=True)
    dvc_module.shared_config.cache_clear()
    return project


def verify(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["verify", *arguments])


def objects() -> dict[str, Copy]:
    cache = Path(".dvc/cache").absolute()
    outs = recorded_outs(Path("dvc.lock").read_text())
    return {copy.name: copy for out in outs for copy in copies_of(out, cache, None)}


def type_what_it_says(result: Result) -> None:
    """The commands below "to mend it, type:", in a shell."""
    _, commands = result.stdout.split("to mend it, type:\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-e", "-c", commands],
        check=True,
        capture_output=True,
        env=os.environ | {"PATH": path},
    )


def test_what_dvc_made_is_verified(made: Path) -> None:
    result = verify()
    assert (result.exit_code, result.stderr) == (0, "")
    size = 2 * (4 + 4 + 6) + objects()["folder"].path.stat().st_size
    words = f"verified: 2 outs, 7 files in the workspace and the cache, {size} bytes\n"
    assert result.stdout == words


def test_a_flipped_byte_in_the_workspace_is_mended_from_the_cache(made: Path) -> None:
    flip(Path("folder/a"))
    flip(Path("a file"))
    result = verify()
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "damaged: folder/a in the workspace",
        "damaged: a file in the workspace",
        "to mend it, type:",
        "  rm -rf folder/a",
        "  rm -rf 'a file'",
        "  dvc checkout folder 'a file'",
    ]
    type_what_it_says(result)
    assert verify().exit_code == 0


@pytest.mark.parametrize("name", ["folder/a", "folder", "a file"])
@pytest.mark.parametrize("has_remote", [True, False], ids=["remote", "no remote"])
def test_a_flipped_byte_in_the_cache_is_mended(
    made: Path, tmp_path: Path, name: str, has_remote: bool
) -> None:
    if has_remote:
        for arguments in (("remote", "add", "--default", "far", str(tmp_path / "far")), ("push",)):
            assert dvc(*arguments).returncode == 0
        dvc_module.shared_config.cache_clear()
    place = objects()[name].path
    flip(place)
    result = verify()
    assert result.exit_code == 1
    assert result.stdout.startswith(f"damaged: {name} in the cache ({place})\n")
    assert f"  {'dvc pull' if has_remote else 'dvc repro --force --single-item'} " in result.stdout
    type_what_it_says(result)
    assert verify().exit_code == 0


def test_what_has_no_copy_is_made_again(made: Path) -> None:
    objects()["a file"].path.unlink()
    Path("a file").unlink()
    result = verify()
    assert (result.exit_code, result.stdout.splitlines()[0]) == (
        1,
        "missing: a file has no copy here",
    )
    type_what_it_says(result)
    assert verify().exit_code == 0


def test_a_model_is_checked_in_the_cache(made: Path) -> None:
    journal = keep()
    (journal.folder / "dvc.lock").write_text(Path("dvc.lock").read_text())
    flip(Path("folder/a"))  # the workspace is not what is asked about
    result = verify(FINGERPRINT)
    assert result.exit_code == 0, result.output
    assert "verified: 2 outs, 4 files in the cache" in result.stdout
    flip(objects()["folder/b"].path)
    result = verify(FINGERPRINT)
    assert result.exit_code == 1
    assert result.stdout.endswith(f"  imageclf rebuild {FINGERPRINT}\n")


def test_what_cannot_be_tried_gets_one_line(project: Path) -> None:
    assert verify().stderr == (
        "error: there is no dvc.yaml here: run this in the folder of the project\n"
    )
    Path("dvc.yaml").write_text("stages: {}\n")
    result = verify()
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "there is no dvc.lock: nothing was made here yet" in result.stderr
    assert verify("0" * 8).exit_code == 2
