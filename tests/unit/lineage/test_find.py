import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.descriptions import FINGERPRINT
from helpers.params import params_text
from helpers.tracked import LOCK, Registry, keep
from imageclf.files import UserError, write_json
from imageclf.lineage.find import find, fingerprint_of, uri_named, version_named
from imageclf.tracking.journal import Journal
from imageclf.tracking.messages import File
from imageclf.tracking.patch import record_source


@pytest.fixture
def models(project: Path, onnx_file: Path) -> Registry:
    return Registry(project, onnx_file)


def test_a_models_files_tell_its_fingerprint(project: Path, onnx_file: Path) -> None:
    exported = Path("models/exported")
    exported.mkdir(parents=True)
    shutil.copy(onnx_file, exported / "model.onnx")
    (exported / "model.pt2").touch()
    write_json(Path("models/classifier/model.json"), {"fingerprint": "e" * 64})
    assert fingerprint_of(Path("models/classifier")) == "e" * 64
    for path in (exported, exported / "model.onnx", exported / "model.pt2", onnx_file):
        assert fingerprint_of(path) == FINGERPRINT
    Path("notes.txt").touch()
    for path in (project, Path("notes.txt"), Path("models")):
        with pytest.raises(UserError, match="holds no model"):
            fingerprint_of(path)


def test_the_journal_is_enough_where_mlflow_does_not_answer(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(git_commit="a" * 40, git_dirty="false", hardware="some processor")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found = find(FINGERPRINT[:8])
    assert found.fingerprint == FINGERPRINT
    assert found.run is None
    assert found.provenance.hardware == "some processor"
    assert found.params["train.epochs"] == 20
    assert "runtime.device" not in found.params
    assert [(out.path, out.stage) for out in found.outs] == [("a", "train")]
    (unknown,) = found.unknown
    assert "the tracking server http://127.0.0.1:9 does not answer" in unknown
    with pytest.raises(UserError, match="does not answer"):
        find("models:/digits/1")
    with pytest.raises(UserError, match=r"00000000 names no model \(the tracking server"):
        find("00000000")


def test_what_mlflow_kept_is_enough_where_there_is_no_journal(models: Registry) -> None:
    models.register()
    Path("dvc.lock").write_text(LOCK)
    models.synchronise(items=[File(Path("dvc.lock"))])
    Path("dvc.lock").unlink()
    found = find("models:/digits@champion")
    assert found.version
    assert found.run
    assert (found.version.number, found.run.versions) == ("1", [found.version])
    assert found.outs[0].path == "a"
    assert found.params["train.epochs"] == "20"  # MLflow keeps text
    assert found.unknown == ["it is not known from which commit it was trained"]
    alone = replace(found, version=None)
    assert find(found.run.id) == find(FINGERPRINT) == find(found.run.name) == alone
    for name in ("models:/digits/1", "digits/1", "digits@champion", "digits"):
        assert find(name) == found
        assert version_named(name) == found.version
    for name in ("models:/digits@champion", "digits@champion"):
        assert uri_named(name) == "models:/digits@champion"
    for name in (found.run.id, FINGERPRINT[:8], found.run.name, "digits", "digits/1"):
        assert uri_named(name) == "models:/digits/1"


def test_the_workspace_tells_what_dvc_made_and_not_what_was_edited_since(project: Path) -> None:
    write_json(Path("models/classifier/model.json"), {"fingerprint": FINGERPRINT})
    Path("params.yaml").write_text(params_text())
    params = {"params.yaml": {"train.epochs": 20}}
    outs = [{"path": "models/classifier", "md5": "1" * 32}]
    stage = {"cmd": "true", "params": params, "outs": outs}
    Path("dvc.lock").write_text(json.dumps({"stages": {"train": stage}}))
    found = find("models/classifier")
    assert found.params["train.epochs"] == 20
    assert [out.path for out in found.outs] == ["models/classifier"]
    edited = Path("params.yaml").read_text().replace("epochs: 20", "epochs: 21")
    Path("params.yaml").write_text(edited)
    found = find("models/classifier")
    assert (found.params, found.outs) == ({}, [])
    assert "no dvc.lock of it was kept: it was never registered" in found.unknown


def test_a_beginning_may_name_one_model_only(project: Path) -> None:
    keep("a" * 8 + "b" * 56)
    keep("a" * 8 + "c" * 56)
    assert find("a" * 8 + "b").fingerprint == "a" * 8 + "b" * 56
    with pytest.raises(UserError, match=r"aaaaaaaa may be a{8}b{56} or a{8}c{56}: give more"):
        find("a" * 8)


@pytest.mark.parametrize("what", ["aaaaaaa", "no/such/model.onnx", "it's no model"])
def test_what_names_nothing_gets_one_line(project: Path, what: str) -> None:
    with pytest.raises(UserError, match=f"{what} names no model: give NAME "):
        find(what)


def test_a_model_that_was_never_registered_has_no_version(project: Path) -> None:
    keep()
    with pytest.raises(UserError, match="ffffffff has no registered version"):
        version_named(FINGERPRINT[:8])


def git(*arguments: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit; files of more than 100 bytes are left out of patches."""
    monkeypatch.setattr("imageclf.tracking.patch.MOST_BYTES", 300)
    Path(".gitignore").write_text("mlflow*\n.imageclf\n")
    Path("source.py").write_text("1\n")
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "start")
    return project


def test_files_that_differed_from_the_commit_are_told_from_the_patch(repository: Path) -> None:
    Path("source.py").write_text("2\n")
    Path("recipes").mkdir()
    Path("recipes/a recipe.yaml").write_text("a: 1\n")
    Path("recipes/large.bin").write_bytes(bytes(400))
    keep(**record_source(Journal(FINGERPRINT).patch).tags())
    found = find(FINGERPRINT)
    large = "recipes/large.bin (too large)"
    assert sorted(found.changed_files) == ["recipes/a recipe.yaml", large, "source.py"]
    assert (found.left_out, found.provenance.patch_complete) == ([large], False)
    assert f"how {large} differed from the commit: it is not in changes.patch" in found.unknown
    Journal(FINGERPRINT).patch.unlink()
    found = find(FINGERPRINT)
    assert found.changed_files == []
    assert "the source differed from the commit, and no changes.patch was kept" in found.unknown
