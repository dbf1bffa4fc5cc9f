from pathlib import Path

import pytest

from helpers.params import make_params
from imageclf.files import UserError
from imageclf.training.fingerprint import fingerprint

PIPELINE = """
stages:
  train:
    cmd: python train.py
    params: [seed, train.learning_rate, augment]
    deps: [data, code.py, code]
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("dvc.yaml", PIPELINE), ("data", "images"), ("code.py", "pass")):
        Path(name).write_text(text)
    Path("code/part").mkdir(parents=True)
    Path("code/part/module.py").write_text("pass")


def test_it_covers_parameters_data_and_code() -> None:
    base = fingerprint(make_params())
    assert len(base) == 64
    assert fingerprint(make_params(seed=2)) != base
    assert fingerprint(make_params(train__learning_rate=0.1)) != base
    assert fingerprint(make_params(augment__shift=1)) != base  # of a section that is listed
    for name in ("data", "code.py", "code/part/module.py"):
        before = Path(name).read_text()
        Path(name).write_text("changed")
        assert fingerprint(make_params()) != base
        Path(name).write_text(before)
    assert fingerprint(make_params()) == base
    Path("dvc.yaml").write_text(PIPELINE.replace("train.py", "other.py"))
    assert fingerprint(make_params()) != base


def test_it_ignores_what_the_stage_does_not_use() -> None:
    base = fingerprint(make_params())
    assert fingerprint(make_params(runtime__device="cuda", runtime__threads=7)) == base
    assert fingerprint(make_params(evaluate__top_k=1)) == base
    assert fingerprint(make_params(train__epochs=1)) == base


def test_it_is_the_same_after_python_ran_and_an_editor_was_open() -> None:
    base = fingerprint(make_params())
    for name in ("__pycache__/module.cpython-311.pyc", ".module.py.swp", "module.py~", "#module#"):
        path = Path("code/part") / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("no source")
    assert fingerprint(make_params()) == base


def test_a_missing_dependency_is_named() -> None:
    Path("data").unlink()
    with pytest.raises(UserError, match="data is missing: run `dvc repro`"):
        fingerprint(make_params())


def test_it_covers_the_names_and_contents_of_a_folder() -> None:
    Path("data").unlink()
    Path("data").mkdir()
    Path("data/index.npy").write_text("none")
    base = fingerprint(make_params())
    Path("data/000000.jpegs").write_text("images")
    more = fingerprint(make_params())
    Path("data/000000.jpegs").rename("data/000001.jpegs")
    assert len({base, more, fingerprint(make_params())}) == 3
