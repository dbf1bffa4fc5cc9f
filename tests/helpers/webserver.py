"""A web server on loopback whose faults a test chooses."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Status:
    """Answer with an error."""

    code: int


@dataclass(frozen=True)
class Cut:
    """Close the connection after some bytes of the body."""

    after: int


@dataclass(frozen=True)
class Hold:
    """Fall silent after some bytes of the body, until the server stops."""

    after: int


@dataclass(frozen=True)
class Trickle:
    """Send a byte every tenth of a second."""


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path; each request meets the first of ``faults`` that are left."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.faults: list[Status | Cut | Hold | Trickle] = []
        self.etag: str | None = '"1"'
        self.honours_ranges = True
        self.misplaces_ranges = False
        self.asked: list[tuple[str, str | None]] = []  # path and Range of each request
        self.sent: Counter[str] = Counter()  # bytes of the bodies by path
        self.stopping = threading.Event()

    def handle_error(self, request, client_address) -> None:
        """A client that goes away in the middle is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append((self.path, wanted))
        fault = server.faults.pop(0) if server.faults else None
        body = server.files.get(self.path)
        if isinstance(fault, Status) or body is None:
            return self.send_error(fault.code if isinstance(fault, Status) else 404)
        start = self._start(wanted)
        if start is not None and start >= len(body):
            return self.send_error(416)
        self.send_response(200 if start is None else 206)
        if server.etag:
            self.send_header("ETag", server.etag)
        if start is not None:
            place = start + 1 if server.misplaces_ranges else start
            self.send_header("Content-Range", f"bytes {place}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - (start or 0)))
        self.end_headers()
        return self._send(body[start or 0 :], fault)

    def _start(self, wanted: str | None) -> int | None:
        known = self.headers.get("If-Range")
        # A weak validator never matches in If-Range (RFC 9110, 13.1.5).
        same = known is None or (known == self.server.etag and not known.startswith("W/"))
        if wanted is None or not self.server.honours_ranges or not same:
            return None
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def _send(self, body: bytes, fault: Cut | Hold | Trickle | None) -> None:
        size = 1 if isinstance(fault, Trickle) else 1 << 14
        last = fault.after if isinstance(fault, Cut | Hold) else len(body)
        for place in range(0, last, size):
            piece = body[place : min(place + size, last)]
            self.wfile.write(piece)
            self.server.sent[self.path] += len(piece)
            if isinstance(fault, Trickle) and self.server.stopping.wait(0.1):
                return
        if isinstance(fault, Hold):
            self.server.stopping.wait()

    def log_message(self, *args) -> None:
        """Nothing: the tests look at ``asked``."""


@contextmanager
def running_server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()
