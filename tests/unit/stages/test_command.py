import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.params import ROOT
from imageclf.files import read_yaml


@pytest.mark.parametrize("stage", ["fetch", "register"])
def test_a_stage_begins_where_python_adds_no_path(stage: str) -> None:
    """With ``PYTHONSAFEPATH`` the folder of a program is no place to import from."""
    (python,) = read_yaml(ROOT / "dvc.yaml")["vars"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", f"{python['python']} stages/{stage}.py --help"],
        cwd=ROOT,
        env={"PATH": path, "DVC_ROOT": str(ROOT), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
