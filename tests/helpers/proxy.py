"""A proxy on loopback before a tracking server: it asks for a password and has faults."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

HOP_BY_HOP = {"connection", "content-encoding", "content-length", "transfer-encoding"}


class Proxy(ThreadingHTTPServer):
    """Hands requests on to the server on ``upstream``, a port of loopback.

    Attributes:
        user, password: that it asks for (basic authentication), if there is a user.
        delay: seconds before a request is handed on, and that much again before its answer is.
        answer: status and body that stand for every answer of the server, if any.
        requests: how many it was asked.
    """

    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.user, self.password = "", ""
        self.delay = 0.0
        self.answer: tuple[int, bytes] | None = None
        self.requests = 0
        self.stopping = threading.Event()

    def address(self, user: str = "", password: str = "") -> str:
        login = f"{user}:{password}@" if user else ""
        return f"http://{login}127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """A client that goes away in the middle is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Proxy

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

    def log_message(self, *args) -> None:
        """Nothing."""


@contextmanager
def running_proxy(upstream: int) -> Iterator[Proxy]:
    with Proxy(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.stopping.set()
            proxy.shutdown()
            thread.join()
