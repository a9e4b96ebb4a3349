"""A proxy as hospitals have it: it knows CONNECT alone."""

from __future__ import annotations

import http.server
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.health import serving


def _passed_on(end: socket.socket, other: socket.socket) -> bool:
    piece = end.recv(65536)
    other.sendall(piece)
    return bool(piece)


@contextmanager
def tunnel(refuses: int | None = None) -> Iterator[int]:
    """A proxy that knows CONNECT alone."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            if refuses is not None:
                self.send_error(refuses)
                return
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=5) as server:
                self.send_response(200)
                self.end_headers()
                ends = {self.connection: server, server: self.connection}
                with suppress(ConnectionError):
                    while all(_passed_on(end, ends[end]) for end in select.select(list(ends), [], [], 5)[0]):
                        pass
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as port:
        yield port
