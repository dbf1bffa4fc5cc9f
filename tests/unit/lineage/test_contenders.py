import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.descriptions import DIGESTS, FINGERPRINT
from helpers.params import params_text
from helpers.tracked import IMAGES, Registry
from imageclf.evaluation.comparison import Contender
from imageclf.files import UserError, write_json, write_text
from imageclf.lineage.contenders import named, rival
from imageclf.project import dvc as dvc_module

OTHER = "e" * 64


@pytest.fixture
def models(project: Path, onnx_file: Path) -> Iterator[Registry]:
    dvc_module.shared_config.cache_clear()
    yield Registry(project, onnx_file)
    dvc_module.shared_config.cache_clear()


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(
        ["git", *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def without_answers(model: Contender | None) -> Contender:
    """What can be told to be equal: arrays cannot."""
    assert model
    return replace(model, answers=None)


def test_a_version_comes_with_the_figures_and_predictions_of_its_run(models: Registry) -> None:
    models.register(right=80, register__name="digits")
    found = named("models:/digits/1")
    assert found.title == "digits 1 (challenger, champion)"
    assert (found.fingerprint, found.test_digest) == (FINGERPRINT, DIGESTS["test"])
    assert found.params["train.epochs"] == "20"
    assert found.figures["accuracy"] == 0.8
    assert found.answers
    assert (len(found.answers), found.answers.right.sum()) == (IMAGES, 80)
    for name in (FINGERPRINT[:8], models.runs()[0].info.run_id):
        assert without_answers(named(name)) == without_answers(found)


def test_the_rival_is_the_champion_and_of_the_champion_the_one_before_it(models: Registry) -> None:
    models.register(right=60, register__name="digits")
    first = named("models:/digits/1")
    assert rival(first) is None
    models.register(right=90, fingerprint=OTHER, register__name="digits", train__epochs=3)
    second = named("models:/digits/2")
    assert second.title == "digits 2 (challenger, champion)"
    assert without_answers(rival(first)) == without_answers(second)
    assert without_answers(rival(second)) == replace(without_answers(first), title="digits 1")


def test_a_commit_has_the_model_of_its_lock_file_and_the_files_of_the_cache(
    models: Registry,
) -> None:
    """No stage has run and no server knows of it: only git, DVC and the cache do."""
    models.write_evidence(70)
    write_json(Path("data/prepared/digests.json"), DIGESTS)
    write_json(Path("models/classifier/model.json"), {"fingerprint": FINGERPRINT})
    outs = ["data/prepared", "models/classifier", "reports/metrics.json", "reports/evaluation"]
    write_text(Path("params.yaml"), params_text())
    stage = {"cmd": "true", "params": ["train.epochs"], "outs": outs}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"all": stage}}))
    git("init", "--quiet")
    for arguments in (("init", "--quiet"), ("commit", "--quiet", "--force", "all")):
        done = dvc_module.dvc(*arguments)
        assert done.returncode == 0, done.stderr
    git("add", "--all")
    git("commit", "--quiet", "--message", "one")
    commit = git("rev-parse", "HEAD")
    for path in ("dvc.lock", "reports/metrics.json", "reports/evaluation/predictions.csv"):
        Path(path).unlink()
    found = named(commit[:9])
    assert without_answers(named("HEAD")) == without_answers(found)
    assert found.title == f"the commit {commit[:7]}"
    assert (found.fingerprint, found.test_digest) == (FINGERPRINT, DIGESTS["test"])
    assert found.params["train.epochs"] == 20
    assert found.figures["accuracy"] == 0.7
    assert found.answers
    assert found.answers.right.sum() == 70


def test_a_commit_without_a_lock_file_has_the_model_that_was_trained_from_it(
    models: Registry,
) -> None:
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "one")
    commit = git("rev-parse", "HEAD")
    with pytest.raises(UserError, match="has no dvc.lock, and MLflow no run"):
        named("HEAD")
    models.register()
    (run,) = models.runs()
    models.client.set_tag(run.info.run_id, "git_commit", commit)
    assert named("HEAD").fingerprint == FINGERPRINT
    models.register(fingerprint=OTHER)
    other = next(run for run in models.runs() if run.data.tags["fingerprint"] == OTHER)
    models.client.set_tag(other.info.run_id, "git_commit", commit)
    with pytest.raises(UserError, match=f"2 models were .*: {OTHER[:8]}, {FINGERPRINT[:8]}"):
        named("HEAD")


def test_what_is_neither_a_model_nor_a_commit_is_refused(models: Registry) -> None:
    with pytest.raises(UserError, match="names no model"):
        named("nothing")
    with pytest.raises(UserError, match="nothing was trained here yet"):
        named("workspace")
