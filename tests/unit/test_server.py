import socket
import stat
from pathlib import Path

import pytest

from imageclf import server
from imageclf.files import UserError
from imageclf.server import running_server


def start(root: Path, port: int, backend: server.Backend = "sqlite") -> str:
    with pytest.raises(UserError) as caught, running_server(root, backend, port):
        pass
    return str(caught.value)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert start(tmp_path, port).startswith(
            f"port {port}: Address already in use; `make server"
        )


def test_postgresql_that_is_not_installed_is_named(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "DEBIAN", tmp_path / "nothing")
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = start(tmp_path, free_port, "postgres")
    assert reason == "PostgreSQL is not installed: there is no initdb (Debian: postgresql)"


def test_the_password_is_drawn_once_and_for_its_owner(tmp_path: Path) -> None:
    path = server._credentials(tmp_path)
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(text.split()[-1]) >= 20
    assert server._credentials(tmp_path).read_text() == text


def test_users_without_the_password_are_no_new_start(tmp_path: Path, free_port: int) -> None:
    (tmp_path / ".server").mkdir()
    (tmp_path / ".server/auth.db").touch()
    assert start(tmp_path, free_port).endswith(
        "is gone: bring it back, or remove auth.db beside it"
    )
