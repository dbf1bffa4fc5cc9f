import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers.descriptions import FINGERPRINT
from helpers.tracked import keep
from imageclf.cli import main
from imageclf.commands.common import WIDTH
from imageclf.project import dvc as dvc_module


@pytest.fixture
def bare(project: Path) -> Path:
    """The current folder, with a journal and nothing else: no git, no DVC, no tracking store."""
    (project / "mlflow.db").unlink()
    dvc_module.shared_config.cache_clear()
    keep(git_commit="a" * 40, git_dirty="false", device="cpu", hardware="some processor")
    return project


def trace(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["trace", *arguments])


def test_what_is_known_is_shown_and_the_rest_named(bare: Path) -> None:
    result = trace(FINGERPRINT[:8])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert f"fingerprint  {FINGERPRINT}" in lines
    assert f"commit       {'a' * 40}" in lines
    assert "machine      cpu, some processor" in lines
    for words in (
        "there is no tracking store at sqlite:///",
        "the commit aaaaaaaa is not in this repository",
        "where the files are: this is no DVC project",
        "which parameters differ from the recipe fashion_part4: no recipes in recipes/",
    ):
        assert words in " ".join(result.stdout.split())
    assert max(map(len, lines)) <= WIDTH
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)
    assert not (bare / "mlflow.db").exists()


def test_json_has_all_of_it(bare: Path) -> None:
    found = json.loads(trace(FINGERPRINT, "--json").stdout)
    assert (found["what"], found["fingerprint"]) == (FINGERPRINT, FINGERPRINT)
    assert (found["run"], found["versions"]) == (None, [])
    assert found["params"]["train.learning_rate"] == 0.003
    assert found["outs"] == [
        {"path": "a", "stage": "train", "md5": "1" * 32, "in_cache": None, "on_remote": None}
    ]
    assert len(found["unknown"]) == 4


def test_a_model_that_nobody_knows_gets_one_line(bare: Path) -> None:
    result = trace("0" * 8)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: 00000000 names no model")
    assert len(result.stderr.splitlines()) == 1


def test_a_commit_that_is_an_option_of_git_is_none(bare: Path) -> None:
    """As a journal of another clone may hold it: `git log --output=FILE` empties FILE."""
    subprocess.run(["git", "init", "--quiet"], check=True)
    precious = bare / "precious"
    precious.write_text("precious")
    path = bare / ".imageclf/trained" / FINGERPRINT / "origin.json"
    told = path.read_text().replace("a" * 40, f"--output={precious}")
    path.write_text(told)
    result = trace(FINGERPRINT)
    assert result.exit_code == 0
    assert precious.read_text() == "precious"
    words = " ".join(result.stdout.split())
    assert "its git_commit is invalid: '--output=" in words
    assert "it is not known from which commit it was trained" in words
    result = CliRunner().invoke(main, ["rebuild", FINGERPRINT, "again", "--yes"])
    assert result.exit_code == 2
    assert "it is not known from which commit it was trained" in result.stderr
    assert not (bare / "again").exists()


def test_a_bad_journal_hides_what_it_told_alone(bare: Path) -> None:
    (bare / ".imageclf/trained" / FINGERPRINT / "origin.json").write_bytes(b"\xff")
    Path("models/classifier").mkdir(parents=True)
    Path("models/classifier/model.json").write_text(json.dumps({"fingerprint": FINGERPRINT}))
    result = trace("models/classifier")
    assert result.exit_code == 0, result.output
    assert "what the journal holds: the training ffffffff: origin.json" in " ".join(
        result.stdout.split()
    )


def test_a_patch_that_is_not_complete_is_told(bare: Path) -> None:
    patch = bare / ".imageclf/trained" / FINGERPRINT / "changes.patch"
    patch.write_text("left out: src/key.pem (it looks like a secret: Private Key)\n")
    words = " ".join(trace(FINGERPRINT).stdout.split())
    assert "src/key.pem (it looks like a secret: Private Key) (not rebuildable from" in words
    assert "Private Key) differed from the commit: it is not in changes.patch" in words
