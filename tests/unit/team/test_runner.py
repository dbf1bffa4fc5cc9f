import json
import shutil
from pathlib import Path

import pytest

from helpers.params import params_text
from imageclf.files import UserError
from imageclf.project.dvc import dvc
from imageclf.team import runner


def test_one_runner_works_in_a_folder(clones: list[Path]) -> None:
    with runner.alone(), pytest.raises(UserError, match="works in this folder already"):
        runner.alone().__enter__()


def test_a_training_is_known_by_its_code_and_by_data_that_need_not_be_here(project: Path) -> None:
    make = {"cmd": "mkdir data && cp source data/images", "deps": ["source"], "outs": ["data"]}
    train = {"cmd": "true", "params": ["seed"], "deps": ["data", "src/code"]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"make": make, "train": train}}))
    Path("params.yaml").write_text(params_text())
    Path("src/code").mkdir(parents=True)
    Path("src/code/module.py").write_text("pass")
    keys = []
    for images in ("1", "2"):
        Path("source").write_text(images)
        assert dvc("init", "--no-scm", "--quiet", "--force").returncode == 0
        assert dvc("repro", "--quiet", "make").returncode == 0
        keys.append(runner.training_key())
    shutil.rmtree("data")
    Path("src/code/__pycache__").mkdir()
    Path("src/code/__pycache__/module.pyc").write_text("no source")
    assert runner.training_key() == keys[1] != keys[0]
    Path("src/code/module.py").write_text("return")
    assert runner.training_key() not in keys
