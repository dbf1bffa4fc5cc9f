"""What a dvc.lock of another clone may tell: no path outside of the project, no option of DVC."""

import json

import pytest

from imageclf.files import UserError
from imageclf.project.lock import recorded_outs


def lock(path: str, stage: str = "train", md5: str = "1" * 32) -> str:
    outs = [{"path": path, "md5": md5}]
    return json.dumps({"stages": {stage: {"cmd": "true", "outs": outs}}})


def test_an_out_is_read() -> None:
    (out,) = recorded_outs(lock("models/classifier"))
    assert (out.path, out.stage) == ("models/classifier", "train")


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "..", "../other/data", "data/../../other", ".git/config", ".dvc/x"]
)
def test_an_out_outside_of_the_project_is_refused(path: str) -> None:
    with pytest.raises(UserError, match=r"dvc\.lock is torn or not DVC's"):
        recorded_outs(lock(path))


@pytest.mark.parametrize("stage", ["", "--force", "a/b", "a b", "a\n"])
def test_a_stage_of_another_kind_of_name_is_refused(stage: str) -> None:
    with pytest.raises(UserError, match=r"dvc\.lock is torn or not DVC's"):
        recorded_outs(lock("data/raw", stage))


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_one_is_told(text: str) -> None:
    with pytest.raises(UserError, match=r"dvc\.lock is empty: type `imageclf mend`"):
        recorded_outs(text)


@pytest.mark.parametrize("md5", ["", "1" * 31, "../../../etc/passwd", "G" * 32, f"{'1' * 32}.dirx"])
def test_what_is_no_md5_is_refused(md5: str) -> None:
    with pytest.raises(UserError, match=r"dvc\.lock is torn or not DVC's"):
        recorded_outs(lock("data/raw", md5=md5))
