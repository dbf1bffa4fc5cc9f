import errno
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from imageclf.files import (
    UserError,
    atomic_folder,
    atomic_writer,
    digest_of,
    file_errors_told,
    parse_yaml,
    read_json,
    sha256_file,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "value.json"
    write_json(target, {"a": 1})
    with pytest.raises(OSError, match="full"), atomic_writer(target) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "disk full")
    assert json.loads(target.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_folder(target) as folder:
        (folder / "old").touch()
    with pytest.raises(ValueError, match="boom"), atomic_folder(target) as folder:
        (folder / "new").touch()
        raise ValueError("boom")
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_left_by_a_killed_writer_is_swept_away(tmp_path: Path) -> None:
    leftover = tmp_path / ".model.tmp"
    leftover.mkdir()
    (leftover / "half").touch()
    with atomic_folder(tmp_path / "model") as folder:
        assert list(folder.iterdir()) == []
    assert not leftover.exists()


def test_json_that_is_missing_or_broken_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing: run `dvc repro`"):
        read_json(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "broken.json")


def test_json_refuses_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    [
        "2001-99-99",
        "2001-01-01T99:99:99Z",
        "9" * 5000,
        "!!int x",
        "!!float ''",
        "!!bool x",
        "!!binary x",
        "!!omap x",
        "[" * 2000,
        "*nowhere",
        "=",
    ],
    ids=lambda value: value[:12],
)
def test_yaml_that_cannot_be_read_is_told_in_one_line(value: str) -> None:
    with pytest.raises(UserError, match=r"^params.yaml is not valid YAML: .+$") as told:
        parse_yaml(f"seed: {value}", "params.yaml")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            "   rate: 0.1  # here",
            'line 4, "rate: 0.1": is indented by 3 and the line above by 2: '
            "the names of one section begin at the same column",
        ),
        (
            " rate: 0.1",
            'line 4, "rate: 0.1": is indented by 1 and the line above by 2: '
            "the names of one section begin at the same column",
        ),
        (
            "rate: 0.1",
            'line 5, "size: 32": is indented by 2 and the line above by 0: '
            "the names of one section begin at the same column",
        ),
        ("\trate: 0.1", 'line 4, "rate: 0.1": begins with a tab: use spaces'),
        ("  rate 0.1", 'line 4, "rate 0.1": is not "name: value", with a space after the colon'),
        ("  rate:0.1", 'line 4, "rate:0.1": is not "name: value", with a space after the colon'),
        ("  rate: @x", """line 4, "rate: @x": found character '@' that cannot start any token"""),
    ],
)
def test_the_line_at_fault_is_named_with_what_is_expected(line: str, fault: str) -> None:
    text = f"train:\n  epochs: 3\n# a comment\n{line}\n  size: 32\n"
    with pytest.raises(UserError) as told:
        parse_yaml(text, "params.yaml")
    assert str(told.value) == f"params.yaml is not valid YAML: {fault}"


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 1.5})


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file become larger than 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_of_errors_of_the_system_those_on_files_and_disks_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing: No such file"), file_errors_told():
        (tmp_path / "nothing").read_bytes()
    with pytest.raises(UserError, match="the disk is full"), file_errors_told():
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match="the disk is full"), file_errors_told(), small_files():
        np.save(tmp_path / "array.npy", np.zeros(1000))  # NumPy's error has no number
    with pytest.raises(ConnectionResetError), file_errors_told():
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
