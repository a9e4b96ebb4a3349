"""The line between a site and its server, in the hands of a test: slow, cut, or losing one reply.

It ends the encryption with the server's own key (a test may), so that it sees which request a reply belongs to.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from brainunet_server.federation import Folder

PIECE: Final = 4096
_TROUBLE: Final = (OSError, EOFError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


@dataclass
class Seen:
    """One request that went through: when, its path, and the bytes of it and of its reply (heads and bodies)."""

    at: float
    path: str
    up: int
    down: int = 0
    lost: bool = False


class Link:
    """Serves a port of its own while the block runs, and passes requests on to the federation's server.

    Args:
        folder: the coordinator's, for the server's key and certificate.
        target: the port of the server.
        up, down: bytes a second; None is as fast as it goes.
    """

    def __init__(self, folder: Folder, target: int, *, up: float | None = None, down: float | None = None) -> None:
        self.up, self.down, self.port = up, down, 0
        self.seen: list[Seen] = []
        self._folder, self._target = folder, target
        self._down_until, self._cut_at, self._cut_s = 0.0, None, 0.0
        self._lose: list[tuple[str, int]] = []
        self._free = {"up": 0.0, "down": 0.0}  # when the line is free again
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    _cut_at: int | None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def bytes_up(self) -> int:
        return sum(request.up for request in self.seen)

    @property
    def bytes_down(self) -> int:
        return sum(request.down for request in self.seen)

    def times(self, path: str) -> int:
        """How many requests there were whose path contains this."""
        return sum(path in request.path for request in self.seen)

    def cut(self, seconds: float) -> None:
        """Every connection breaks now, and none is made for so long."""
        self._loop.call_soon_threadsafe(self._cut, seconds)

    def cut_after(self, bytes_up: int, seconds: float) -> None:
        """The same once so many bytes more have gone up."""
        self._cut_at, self._cut_s = self.bytes_up + bytes_up, seconds

    def lose_reply(self, path: str, *, larger_than: int = -1) -> None:
        """The next request whose path contains this, and whose reply has a larger body, reaches the server in vain."""
        self._lose.append((path, larger_than))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ours.load_cert_chain(self._folder.server_certificate, self._folder.server_key)
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=ours, limit=16 * PIECE)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._end.wait()
            server.close()
            self._break()
        mine = asyncio.all_tasks() - {asyncio.current_task()}
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)

    def _cut(self, seconds: float) -> None:
        self._down_until = time.monotonic() + seconds
        self._break()

    def _break(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if time.monotonic() < self._down_until:
            writer.transport.abort()
            return
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            theirs = ssl.create_default_context(cafile=str(self._folder.ca_certificate))
            replies, onward = await asyncio.open_connection(
                "127.0.0.1", self._target, ssl=theirs, server_hostname="127.0.0.1", limit=64 * PIECE
            )
            self._writers.add(onward)
            while await self._exchange(reader, writer, replies, onward):
                pass
        except (*_TROUBLE, asyncio.CancelledError):  # cancelled at the end of the block only
            pass
        finally:
            for one in (writer, onward):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        replies: asyncio.StreamReader,
        onward: asyncio.StreamWriter,
    ) -> bool:
        """One request and its reply; False once nothing more is to come."""
        head = await _head(reader)
        if not head:
            return False
        request = Seen(time.monotonic(), head.split(b" ", 2)[1].decode(errors="replace"), 0)
        self.seen.append(request)
        await self._pass(head, onward, "up", request)
        await self._body(head, reader, onward, "up", request)
        answer = await _head(replies)
        lost = next((one for one in self._lose if one[0] in request.path and _body_bytes(answer.lower()) > one[1]), None)
        if lost is not None:
            self._lose.remove(lost)
            request.lost = True
            return False
        await self._pass(answer, writer, "down", request)
        await self._body(answer, replies, writer, "down", request)
        return True

    async def _body(
        self, head: bytes, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str, request: Seen
    ) -> None:
        fields = head.lower()
        if b"transfer-encoding: chunked" in fields:
            while True:
                size = await source.readuntil(b"\r\n")
                await self._pass(size + await source.readexactly(int(size, 16) + 2), sink, way, request)
                if int(size, 16) == 0:
                    return
        left = _body_bytes(fields)
        while left:
            piece = await source.read(min(PIECE, left))
            if not piece:
                raise EOFError
            left -= len(piece)
            await self._pass(piece, sink, way, request)

    async def _pass(self, piece: bytes, sink: asyncio.StreamWriter, way: str, request: Seen) -> None:
        rate = self.up if way == "up" else self.down
        if rate is not None:
            self._free[way] = max(self._free[way], time.monotonic()) + len(piece) / rate
            await asyncio.sleep(max(0.0, self._free[way] - time.monotonic()))
        if way == "up":
            request.up += len(piece)
            if self._cut_at is not None and self.bytes_up >= self._cut_at:
                self._cut_at = None
                self._cut(self._cut_s)
                raise EOFError
        else:
            request.down += len(piece)
        sink.write(piece)
        with suppress(AttributeError):  # aborted meanwhile
            await sink.drain()


async def _head(reader: asyncio.StreamReader) -> bytes:
    """The first lines of a message up to the empty one; nothing at the end of a connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _body_bytes(fields: bytes) -> int:
    after = fields.partition(b"content-length:")[2]
    return int(after.split(b"\r\n", 1)[0]) if after else 0
