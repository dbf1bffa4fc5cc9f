"""`imageclf rate` in a project whose data are prepared."""

import re
import sys
from pathlib import Path

from helpers.project import STAGES, Project


def test_it_suggests_a_rate_draws_the_curve_and_leaves_nothing_else(tmp_path: Path) -> None:
    project = Project(tmp_path)
    for stage in STAGES[: STAGES.index("train")]:
        project.run("env", "PYTHONPATH=src", sys.executable, f"stages/{stage}.py")
    before = {path for path in tmp_path.rglob("*") if ".git" not in path.parts}
    said = project.run("imageclf", "rate")
    assert re.match(r"train.learning_rate: 0.0\d+ is suggested; it is 0.003 now\n", said)
    assert "the curve: reports/rate.png" in said
    after = {path for path in tmp_path.rglob("*") if ".git" not in path.parts}
    assert {path.relative_to(tmp_path) for path in after - before} == {Path("reports/rate.png")}
    assert project.run("git", "status", "--porcelain") == ""
    project.set("model.init", "normal")
    project.set("model.init_std", "1.0e+30")
    said = project.run("sh", "-c", "imageclf rate; echo exit $?")
    assert said.splitlines()[-1].startswith("error: the loss is nan before the first step")
    assert "exit 2\n" in said
    assert "Traceback" not in said
