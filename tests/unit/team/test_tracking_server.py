import os
import socket
import stat
from pathlib import Path

import pytest
from filelock import FileLock

from imageclf.files import UserError, write_json
from imageclf.team import tracking_server as server
from imageclf.team.tracking_server import running_server


def start(root: Path, port: int, backend: server.Backend = "sqlite") -> str:
    with pytest.raises(UserError) as caught, running_server(root, backend, port):
        pass
    return str(caught.value)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = f"(process {os.getpid()}) has it; `make server PORT=...` takes another"
        assert start(tmp_path, port).endswith(told)


def test_postgresql_that_is_not_installed_is_named(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "DEBIAN", tmp_path / "nothing")
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = start(tmp_path, free_port, "postgres")
    assert reason == "PostgreSQL is not installed: there is no initdb (Debian: postgresql)"
    assert [path.name for path in (tmp_path / ".server").iterdir()] == ["lock"]


def test_a_cluster_is_run_by_the_version_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("15", "17"):
        initdb = tmp_path / version / "bin/initdb"
        initdb.parent.mkdir(parents=True)
        initdb.write_text(f"#!/bin/sh\necho 'initdb (PostgreSQL) {version}.1 (Debian)'\n")
        initdb.chmod(0o755)
    monkeypatch.setattr(server, "DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server.postgres_programs(tmp_path) == tmp_path / "17/bin"
    (tmp_path / "PG_VERSION").write_text("15\n")
    assert server.postgres_programs(tmp_path) == tmp_path / "15/bin"
    monkeypatch.setenv("PATH", str(tmp_path / "17/bin"))
    assert server.postgres_programs(tmp_path) == tmp_path / "15/bin"
    (tmp_path / "PG_VERSION").write_text("1\n")
    with pytest.raises(UserError, match=r"PostgreSQL 1, which is not .*: postgresql-1\)$"):
        server.postgres_programs(tmp_path)


def test_the_password_is_drawn_once_and_for_its_owner(tmp_path: Path) -> None:
    path = server.draw_credentials(tmp_path)
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(text.split()[-1]) >= 20
    assert server.draw_credentials(tmp_path).read_text() == text


def test_users_without_the_password_are_no_new_start(tmp_path: Path, free_port: int) -> None:
    (tmp_path / ".server").mkdir()
    (tmp_path / ".server/auth.db").touch()
    assert start(tmp_path, free_port).endswith(
        "is gone: bring it back, or remove auth.db beside it"
    )


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xff\n",
        b"me:secret\n",
        b"[mlflow]\nmlflow_tracking_username = me\n",
        b"[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password =\n",
    ],
)
def test_a_damaged_file_of_the_password_is_named(
    tmp_path: Path, free_port: int, damaged: bytes
) -> None:
    credentials = tmp_path / ".server/credentials"
    credentials.parent.mkdir()
    credentials.write_bytes(damaged)
    advice = "bring it back, or remove it and auth.db beside it"
    reason = f"{credentials} does not hold user and password: {advice}"
    assert start(tmp_path, free_port) == reason
    assert (tmp_path / ".server/.gitignore").read_text() == "*\n"


def test_what_runs_already_is_told_and_not_what_was_asked_for(
    tmp_path: Path, free_port: int
) -> None:
    folder = tmp_path / ".server"
    folder.mkdir()
    with FileLock(folder / "lock"):
        assert start(tmp_path, free_port, "postgres").endswith("is starting here: wait for it")
        write_json(folder / "running.json", {"url": "http://127.0.0.1:1", "backend": "sqlite"})
        with running_server(tmp_path, "postgres", free_port) as running:
            told = (running.url, running.backend, running.process)
    assert told == ("http://127.0.0.1:1", "sqlite", None)
