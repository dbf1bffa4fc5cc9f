import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from imageclf.files import UserError
from imageclf.lineage.snapshots import LOCK, PARAMS, Snapshot, pipeline_files, snapshots
from imageclf.project.git import Commit
from imageclf.tracking.journal import Journal
from imageclf.tracking.messages import RunDescription
from imageclf.tracking.provenance import Provenance

LOCK_TEXT = """schema: '2.0'
stages:
  train:
    cmd: python stages/train.py
    params:
      params.yaml:
        train.learning_rate: {rate}
    outs:
    - path: models/classifier
      hash: md5
      md5: {model}
  register:
    cmd: python stages/register.py
    deps:
    - path: models/classifier
      hash: md5
      md5: 0fffffffffffffffffffffffffffffff
  evaluate:
    cmd: python stages/evaluate.py
    deps:
    - path: models/classifier
      hash: md5
      md5: {evaluated}
    outs:
    - path: reports/metrics.json
      hash: md5
      md5: 0{model:.31}
"""


def md5(digit: str) -> str:
    return 32 * digit


def files(model: str, rate: float = 0.1, evaluated: str = "", threads: int = 1) -> dict[str, str]:
    return {
        "dvc.yaml": "stages: {}\n",
        "params.yaml": f"train:\n  learning_rate: {rate}\nruntime:\n  threads: {threads}\n",
        "dvc.lock": LOCK_TEXT.format(model=md5(model), rate=0.1, evaluated=md5(evaluated or model)),
    }


def write(contents: dict[str, str], folder: Path = Path()) -> None:
    for name, text in contents.items():
        (folder / name).write_text(text)


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit(contents: dict[str, str]) -> str:
    write(contents)
    git("add", "--force", *contents)
    git("commit", "--quiet", "--allow-empty", "--message", "x")
    return git("rev-parse", "HEAD")


@pytest.fixture
def repository(project: Path) -> Path:
    git("init", "--quiet", "--initial-branch=main")
    return project


def journal(fingerprint: str, contents: dict[str, str], registered: int) -> None:
    description = RunDescription(fingerprint, fingerprint, "imageclf", {}, {}, Provenance(), 0)
    Journal(fingerprint).register(description, contents, False, registered)


def test_the_register_stage_has_no_part_in_it(project: Path) -> None:
    write(files("a"))
    text = pipeline_files(Path())[LOCK]
    assert "register" not in text
    assert "anything" not in text
    assert text.count("models/classifier") == 2


def test_the_digest_tells_what_decides_numbers() -> None:
    first = Snapshot("", files("a"))
    assert first.digest == Snapshot("", files("a", threads=2)).digest
    assert first.digest != Snapshot("", files("b")).digest
    assert first.digest != Snapshot("", files("a", rate=0.5)).digest
    assert first.outs == {"models/classifier": md5("a"), "reports/metrics.json": f"0{31 * 'a'}"}
    assert first.model == md5("a")


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (files("a"), None),
        (files("a", rate=0.5), "train has not run yet with train.learning_rate: 0.5"),
        (
            files("a", evaluated="b"),
            "evaluate has not run yet with the models/classifier that is there now",
        ),
    ],
)
def test_what_dvc_did_not_finish_is_no_state(contents: dict[str, str], reason: str | None) -> None:
    assert Snapshot("", contents).contradiction() == reason


def test_without_a_training_there_is_nothing(project: Path) -> None:
    with pytest.raises(UserError, match="nothing was trained here yet: type `dvc repro`"):
        snapshots(everything=False, skip=print)
    assert snapshots(everything=True, skip=print) == []


def test_parameters_may_be_locked_by_section() -> None:
    known = "        train.learning_rate: 0.1\n"
    assert known in files("a")[LOCK]
    section = "        train:\n          learning_rate: 0.1\n"
    for rate, reason in ((0.1, None), (0.5, "train has not run yet with train.learning_rate: 0.5")):
        contents = files("a", rate=rate)
        contents[LOCK] = contents[LOCK].replace(known, section)
        assert Snapshot("", contents).contradiction() == reason


def test_a_torn_lock_is_named(project: Path) -> None:
    write(files("a") | {LOCK: "stages: [1"})
    with pytest.raises(UserError, match=r"dvc\.lock is not valid YAML"):
        snapshots(everything=True, skip=print)


def test_a_lock_that_is_cut_anywhere_is_named_or_tells_less(project: Path) -> None:
    whole = files("a")[LOCK]
    for end in range(len(whole)):
        with suppress(UserError):
            found = Snapshot("cut", files("a") | {LOCK: whole[:end]})
            assert found.outs.keys() <= Snapshot("whole", files("a")).outs.keys()
            found.contradiction()


def test_one_snapshot_for_each_model_the_oldest_first(repository: Path) -> None:
    first = commit(files("a"))
    commit({"other.txt": "no state of its own"})
    third = commit(files("b", evaluated="a"))  # evaluate had not run yet
    fourth = commit(files("b"))
    git("checkout", "--quiet", "--detach")
    exp = commit(files("c"))
    git("update-ref", f"refs/exps/{fourth[:2]}/{fourth[2:]}/gaudy-oboe", exp)
    commit({LOCK: "stages: [1"})
    git("update-ref", f"refs/exps/{fourth[:2]}/{fourth[2:]}/torn", git("rev-parse", "HEAD"))
    git("update-ref", "refs/exps/exec/EXEC_HEAD", commit(files("f")))
    git("checkout", "--quiet", "--force", "main")
    write(files("e"))
    journal("f" * 64, files("d"), registered=1000)
    journal("e" * 64, files("a"), registered=2000)
    found = snapshots(everything=True, skip=print)
    assert [each.model for each in found][:2] == [md5("d"), md5("a")]
    by_model: dict[str, Any] = {str(each.model)[0]: each for each in found}
    assert set(by_model) == {"a", "b", "c", "d", "e"}
    assert by_model["c"].label == "the experiment gaudy-oboe"
    assert by_model["c"].experiment == "gaudy-oboe"
    assert by_model["b"].origin == Provenance(Commit(fourth), dirty=False)
    assert by_model["b"].label == f"the commit {fourth[:7]}"
    assert third != fourth
    assert by_model["a"].record
    assert by_model["a"].origin.commit == first
    assert by_model["e"].label == "the workspace"
    (here,) = snapshots(everything=False, skip=print)
    assert here.model == md5("e")


def test_a_changed_workspace_leaves_its_model_as_it_was_registered(project: Path) -> None:
    journal("e" * 64, files("a"), registered=2000)
    write(files("a", rate=0.5))
    (found,) = snapshots(everything=False, skip=print)
    assert found.contradiction() is None
    assert found.record
    assert "0.1" in found.files[PARAMS]
