"""A line of bytes between a puller and a registry, in the hands of a test: as slow as it likes, and cut where it likes.

Unlike ``link`` it does not look inside: what it carries is encrypted.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

PIECE: Final = 16 * 1024


class RawLine:
    """Listens on a port of its own while the block runs, and passes on to ``target`` on this machine.

    Args:
        target: a port.
        rate: bytes a second towards the puller; None is as fast as it goes.

    Attributes:
        target: may change while it listens.
        down: bytes that went towards the puller, over all connections.
        connections: how many there were.
    """

    def __init__(self, target: int, *, rate: float | None = None) -> None:
        self.target, self._rate = target, rate
        self.down, self.connections, self.port = 0, 0, 0
        self._cuts: list[int] = []  # values of ``down`` at which the line breaks
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> Self:
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(10)

    def cut_at(self, *n_bytes: int) -> None:
        """The line breaks each time that so many bytes have gone towards the puller in all."""
        self._cuts = sorted(n_bytes)

    def cut(self) -> None:
        """Every connection breaks now."""
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            try:
                theirs = socket.create_connection(("127.0.0.1", self.target), 10)
            except OSError:  # nobody is there at present
                ours.close()
                continue
            self.connections += 1
            with self._lock:
                self._open |= {ours, theirs}
            self._start(self._carry, ours, theirs, False)
            self._start(self._carry, theirs, ours, True)

    def _carry(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        free_at = 0.0
        try:
            while piece := source.recv(PIECE):
                if down and self._rate is not None:
                    free_at = max(free_at, time.monotonic()) + len(piece) / self._rate
                    time.sleep(max(0.0, free_at - time.monotonic()))
                sink.sendall(piece)
                if down:
                    self.down += len(piece)
                    if self._cuts and self.down >= self._cuts[0]:
                        del self._cuts[0]
                        break
        except OSError:
            pass
        with self._lock:
            for one in (source, sink):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                self._open.discard(one)
        source.close()
