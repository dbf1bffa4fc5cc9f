"""A user that the system does not know, as in a container that runs as a number."""

import getpass
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from imageclf.system.machine import name_the_user

UNKNOWN = 54321


def in_a_child(home: Path) -> int:
    """The exit code of a process of an unknown user, who is named and then asked for by Python."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os.setuid(UNKNOWN)
        for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
            os.environ.pop(name, None)
        name_the_user(home)
        known = (getpass.getuser(), str(Path.home())) == (str(UNKNOWN), str(home))
        os._exit(0 if known and home.is_dir() else 1)
    finally:
        os._exit(2)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_an_unknown_user_gets_a_name_and_a_home() -> None:
    with TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o777)
        assert in_a_child(Path(folder) / "home") == 0


def test_a_known_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "somebody")
    before = dict(os.environ)
    name_the_user(tmp_path / "home")
    assert dict(os.environ) == before
    assert not (tmp_path / "home").exists()
