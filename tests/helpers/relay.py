"""A relay on loopback before a server: it counts what passes, and can hold it back."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

CHUNK = 16 * 1024


class Relay(ThreadingTCPServer):
    """Hands connections on to ``upstream``, a port of loopback.

    Attributes:
        sent, received: bytes that clients sent and got.
        most: bytes that clients may send in all; what is more is kept waiting.
        holding: set when something is.
    """

    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.sent = self.received = 0
        self.most: int | None = None
        self.holding, self.stopping = threading.Event(), threading.Event()
        self.count = threading.Lock()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request, client_address) -> None:
        """A client that goes away in the middle is part of the tests."""


class Handler(BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        upstream = ("127.0.0.1", self.server.upstream)
        with socket.create_connection(upstream) as target:
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


@contextmanager
def running_relay(upstream: int) -> Iterator[Relay]:
    with Relay(upstream) as relay:
        thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield relay
        finally:
            relay.stopping.set()
            relay.shutdown()
            thread.join()
