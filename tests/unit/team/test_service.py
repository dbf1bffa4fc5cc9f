import os
import socket

import psutil
import pytest

from helpers.loopback import FileServer, running
from imageclf.files import UserError
from imageclf.team.service import HOST, answers, check_port


def test_a_taken_port_is_named_with_the_program_that_has_it() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as caught:
            check_port(port, "make ui")
    holder = f"{psutil.Process().name()} (process {os.getpid()}) has it"
    assert str(caught.value) == f"port {port}: {holder}; `make ui PORT=...` takes another"
    check_port(port, "make ui")


def test_no_proxy_stands_between_it_and_the_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with running(FileServer()) as answering:
        answering.files["/health"] = b"OK"
        assert answers(f"{answering.url}/health")
    assert not answers(f"{answering.url}/health")
