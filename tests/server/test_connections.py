"""Who connects and asks nothing takes no place for long; who is served, however slowly, stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from brainunet_server.flower import connections
from brainunet_server.flower.connections import Impatient

IDLE_S = 0.2
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\nx: "

Visit = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


async def slow(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(4 * IDLE_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def visited(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What a visitor of a server with little patience reads."""
    monkeypatch.setattr(connections, "IDLE_S", IDLE_S)

    async def go() -> bytes:
        config = uvicorn.Config(slow, log_config=None, lifespan="off", ws="none", timeout_keep_alive=60)
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(lambda: Impatient(config, state, {}), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            try:
                return await asyncio.wait_for(visit(reader, writer), 10)
            except ConnectionError:
                return b"cut off"
            finally:
                writer.close()
                assert len(state.connections) <= 1

    return asyncio.run(go())


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    return await reader.read() or b"cut off"


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(HEAD)
    end = asyncio.ensure_future(reader.read())
    while not end.done():
        writer.write(b"x")
        await writer.drain()
        await asyncio.wait([end], timeout=IDLE_S / 8)
    return await end or b"cut off"


async def asks_and_leaves_it_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(HEAD + b"y\r\n\r\n")
    answer = await reader.readuntil(b"ok")
    return answer.splitlines()[0] + (await reader.read() or b", cut off")


async def asks_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    said = b""
    for _ in range(2):
        writer.write(HEAD + b"y\r\n\r\n")
        said += (await reader.readuntil(b"ok"))[:12]
        await asyncio.sleep(IDLE_S / 8)
    return said


@pytest.mark.parametrize("visit", [says_nothing, drips])
def test_who_does_not_ask_is_cut_off(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visited(visit, monkeypatch) == b"cut off"


def test_who_waits_for_an_answer_gets_it_and_is_cut_off_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    assert visited(asks_and_leaves_it_open, monkeypatch) == b"HTTP/1.1 200 OK, cut off"


def test_who_asks_again_in_time_is_answered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert visited(asks_twice, monkeypatch) == b"HTTP/1.1 200" * 2
