import io
import time
from hashlib import sha256

import pytest
from rich.console import Console

from helpers.loopback import Cut, FileServer, Hold, Status, Trickle, running
from imageclf.sources import download as module
from imageclf.sources.download import NotFoundError, UnavailableError, download

BODY = bytes(range(256)) * 1000
HALF = len(BODY) // 2


@pytest.fixture
def server():
    with running(FileServer()) as server:
        server.files["/file.gz"] = BODY
        yield server


@pytest.fixture
def url(server):
    return f"{server.url}/file.gz"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "downloads" / "file.gz"


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF", 0.01)
    monkeypatch.setattr(module, "READ_TIMEOUT", 0.4)


def ranges(server):
    return [wanted for _, wanted in server.asked]


def interrupt(url, target, console, monkeypatch):
    """A download that ends in the middle, as by a kill."""
    with monkeypatch.context() as once:
        once.setattr(module, "ATTEMPTS", 1)
        with pytest.raises(UnavailableError):
            download(url, target, console)


def test_a_whole_file_stands_alone_and_a_log_stays_silent(url, target, console):
    download(url, target, console)
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]
    assert console.file.getvalue() == ""


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, url, target, console, code):
    server.faults = [Status(code), Status(code)]
    download(url, target, console)
    assert target.read_bytes() == BODY
    assert len(server.asked) == 3
    assert console.file.getvalue().count(f"HTTP {code}") == 2


def test_a_server_that_stays_busy_is_given_up(server, url, target, console):
    server.faults = [Status(503)] * 10
    with pytest.raises(UnavailableError, match="HTTP 503 Service Unavailable, 4 times"):
        download(url, target, console)
    assert len(server.asked) == module.ATTEMPTS


@pytest.mark.parametrize(("code", "error"), [(404, NotFoundError), (401, UnavailableError)])
def test_a_refusal_is_final(server, url, target, console, code, error):
    server.faults = [Status(code)]
    with pytest.raises(error, match=f"HTTP {code}"):
        download(url, target, console)
    assert len(server.asked) == 1
    assert list(target.parent.iterdir()) == []


def test_a_lost_connection_is_taken_up_where_it_broke(server, url, target, console):
    server.faults = [Cut(HALF), Cut(1000)]
    download(url, target, console)
    assert target.read_bytes() == BODY
    assert ranges(server) == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert server.sent["/file.gz"] == len(BODY)
    assert "the connection was lost; going on from 128.0 kB in" in console.file.getvalue()


@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', None])
def test_a_later_call_takes_up_the_part_that_is_there(
    server, url, target, console, monkeypatch, etag
):
    server.etag, server.faults = etag, [Cut(HALF)]
    interrupt(url, target, console, monkeypatch)
    assert not target.exists()
    download(url, target, console)
    assert target.read_bytes() == BODY
    assert server.sent["/file.gz"] == len(BODY)


def test_a_part_that_lacks_nothing_is_not_asked_for(url, target, console, server, monkeypatch):
    server.faults = [Cut(HALF)]
    interrupt(url, target, console, monkeypatch)
    target.with_name("file.gz.part").write_bytes(BODY)
    download(url, target, console)
    assert target.read_bytes() == BODY
    assert len(server.asked) == 1


def test_a_server_that_ignores_ranges_sends_the_file_anew(server, url, target, console):
    server.honours_ranges, server.faults = False, [Cut(HALF)]
    download(url, target, console)
    assert target.read_bytes() == BODY
    assert ranges(server) == [None, f"bytes={HALF}-"]


def test_another_range_than_asked_for_is_not_added(server, url, target, console):
    server.misplaces_ranges, server.faults = True, [Cut(HALF)]
    download(url, target, console)
    assert target.read_bytes() == BODY
    assert ranges(server) == [None, f"bytes={HALF}-", None]


def test_a_file_that_changed_meanwhile_is_not_mixed(server, url, target, console, monkeypatch):
    server.faults = [Cut(HALF)]
    interrupt(url, target, console, monkeypatch)
    server.files["/file.gz"], server.etag = BODY[::-1], '"2"'
    download(url, target, console)
    assert target.read_bytes() == BODY[::-1]


def test_a_file_that_shrank_meanwhile_is_sent_anew(server, url, target, console, monkeypatch):
    server.etag, server.faults = None, [Cut(HALF)]
    interrupt(url, target, console, monkeypatch)
    server.files["/file.gz"] = BODY[:1000]
    download(url, target, console)
    assert target.read_bytes() == BODY[:1000]
    assert ranges(server) == [None, f"bytes={HALF}-", None]


def test_a_part_of_another_address_is_not_used(server, url, target, console, monkeypatch):
    server.files["/other.gz"] = BODY[::-1]
    server.faults = [Cut(HALF)]
    interrupt(url, target, console, monkeypatch)
    download(f"{server.url}/other.gz", target, console)
    assert target.read_bytes() == BODY[::-1]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(Hold(0), "silent for 0.4 s"), (Hold(HALF), "silent for 0.4 s"), (Trickle(), "sent only")],
)
def test_a_server_that_hangs_is_left(server, url, target, console, fault, reason):
    server.faults = [fault]
    began = time.monotonic()
    download(url, target, console)
    assert target.read_bytes() == BODY
    assert reason in console.file.getvalue()
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9/file.gz", "127.0.0.1: connection refused"),
        ("http://nowhere.invalid/file.gz", "nowhere.invalid does not resolve"),
        ("ftp://127.0.0.1/file.gz", "No connection adapters"),
    ],
)
def test_what_cannot_be_reached_fails_at_once(target, console, address, reason):
    with pytest.raises(UnavailableError, match=reason):
        download(address, target, console)
    assert "going on" not in console.file.getvalue()


def test_the_right_sha256_is_required(url, target, console):
    download(url, target, console, sha256=sha256(BODY).hexdigest())
    assert target.read_bytes() == BODY


def test_a_wrong_sha256_leaves_nothing(url, target, console):
    with pytest.raises(UnavailableError, match=f"{sha256(BODY).hexdigest()}, not {'0' * 64}"):
        download(url, target, console, sha256="0" * 64)
    assert list(target.parent.iterdir()) == []


def test_an_endless_file_is_refused(url, target, console):
    with pytest.raises(UnavailableError, match="more than 100.0 kB"):
        download(url, target, console, largest=100_000)
    assert list(target.parent.iterdir()) == []


def test_a_terminal_shows_the_bytes(server, url, target):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    server.faults = [Cut(HALF)]
    download(url, target, terminal)
    shown = terminal.file.getvalue()
    assert "file.gz" in shown
    assert "256.0/256.0 kB" in shown
