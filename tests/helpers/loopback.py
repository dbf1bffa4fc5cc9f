"""Servers on loopback, each in a thread of the test, with the faults that the test chooses.

``FileServer`` answers from memory, ``Proxy`` hands HTTP requests on, ``Relay`` any bytes.
"""

import base64
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TypeVar

import requests

CHUNK = 16 * 1024
HOP_BY_HOP = {"connection", "content-encoding", "content-length", "transfer-encoding"}


class Loopback(ThreadingTCPServer):
    """What the servers have in common; ``stopping`` is set when the test is done with it."""

    daemon_threads = True
    handler: type[BaseRequestHandler]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.handler)
        self.port = int(self.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.stopping = threading.Event()

    def handle_error(self, request, client_address) -> None:
        """A client that goes away in the middle is part of the tests."""


S = TypeVar("S", bound=Loopback)


@contextmanager
def running(server: S) -> Iterator[S]:
    """Let the server answer, and end it with all that it still does."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()


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


class HttpHandler(BaseHTTPRequestHandler):
    def log_message(self, *args) -> None:
        """Nothing: the tests look at what the server counts."""


class FileHandler(HttpHandler):
    server: "FileServer"

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
        size = 1 if isinstance(fault, Trickle) else CHUNK
        last = fault.after if isinstance(fault, Cut | Hold) else len(body)
        for place in range(0, last, size):
            piece = body[place : min(place + size, last)]
            self.wfile.write(piece)
            self.server.sent[self.path] += len(piece)
            if isinstance(fault, Trickle) and self.server.stopping.wait(0.1):
                return
        if isinstance(fault, Hold):
            self.server.stopping.wait()


class FileServer(Loopback):
    """Serves ``files`` by path; each request meets the first of ``faults`` that are left."""

    handler = FileHandler

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.faults: list[Status | Cut | Hold | Trickle] = []
        self.etag: str | None = '"1"'
        self.honours_ranges = True
        self.misplaces_ranges = False
        self.asked: list[tuple[str, str | None]] = []  # path and Range of each request
        self.sent: Counter[str] = Counter()  # bytes of the bodies by path


class ProxyHandler(HttpHandler):
    server: "Proxy"

    def handle_any(self) -> None:
        server = self.server
        server.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        login = base64.b64encode(f"{server.user}:{server.password}".encode()).decode()
        if server.user and self.headers.get("Authorization") != f"Basic {login}":
            self._send(401, b"who are you?", {"WWW-Authenticate": "Basic"})
        elif server.answer:
            self._send(*server.answer, {"Content-Type": "text/html"})
        elif not server.stopping.wait(server.delay):
            self._hand_on(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def _hand_on(self, body: bytes) -> None:
        own = {"host", "authorization", "content-length"}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in own}
        url = f"http://127.0.0.1:{self.server.upstream}{self.path}"
        try:
            answer = requests.request(self.command, url, data=body, headers=headers, timeout=60)
        except requests.ConnectionError:
            self.close_connection = True  # without an answer, as the server did
            return
        if not self.server.stopping.wait(self.server.delay):
            kept = {key: v for key, v in answer.headers.items() if key.lower() not in HOP_BY_HOP}
            self._send(answer.status_code, answer.content, kept)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Proxy(Loopback):
    """Hands requests on to the server on ``upstream``, a port of loopback.

    Attributes:
        user, password: that it asks for (basic authentication), if there is a user.
        delay: seconds before a request is handed on, and that much again before its answer is.
        answer: status and body that stand for every answer of the server, if any.
        requests: how many it was asked.
    """

    handler = ProxyHandler

    def __init__(self, upstream: int) -> None:
        super().__init__()
        self.upstream = upstream
        self.user, self.password = "", ""
        self.delay = 0.0
        self.answer: tuple[int, bytes] | None = None
        self.requests = 0

    def address(self, user: str, password: str) -> str:
        """Its URL with a login."""
        return self.url.replace("//", f"//{user}:{password}@")


class RelayHandler(BaseRequestHandler):
    server: "Relay"

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.upstream)) as target:
            back = threading.Thread(target=self._pump, args=(target, self.request, False))
            back.start()
            self._pump(self.request, target, True)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket, sending: bool) -> None:
        server = self.server
        with suppress(OSError):
            while data := source.recv(CHUNK):
                with server.count:
                    server.sent += len(data) if sending else 0
                    server.received += 0 if sending else len(data)
                while sending and server.most is not None and server.sent > server.most:
                    server.holding.set()
                    if server.stopping.wait(0.05):
                        return
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Relay(Loopback):
    """Hands connections on to ``upstream``, a port of loopback.

    Attributes:
        sent, received: bytes that clients sent and got.
        most: bytes that clients may send in all; what is more is kept waiting.
        holding: set when something is.
    """

    handler = RelayHandler

    def __init__(self, upstream: int) -> None:
        super().__init__()
        self.upstream = upstream
        self.sent = self.received = 0
        self.most: int | None = None
        self.holding, self.count = threading.Event(), threading.Lock()
