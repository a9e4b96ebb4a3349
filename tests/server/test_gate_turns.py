"""The turns that chunks take at the gate: memory that does not grow with the sites, and no site in the way of others."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER

from brainunet_server.flower.gate import CHUNK_PATHS, CHUNKS_AT_ONCE, REQUESTS_OF_A_KEY, Gate

KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()


@dataclass
class Crowd:
    """What stands behind the gate: how many are in at once, until they are let go."""

    now: int = 0
    most: int = 0
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await self.let_go.wait()
        self.now -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": (await receive())["body"]})


@dataclass
class Line:
    """A connection that sends the first half of a body, and the rest once it is told to; reads no answer before."""

    path: str
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    answered: list[MutableMapping[str, Any]] = field(default_factory=list)
    halves: list[bytes] = field(default_factory=lambda: [b"so", b"me"])
    reads: bool = True
    key: bytes = b"CRV"

    async def through(self, gate: Gate) -> None:
        headers = [(b"content-length", b"4"), (KEY_HEADER, b64encode(self.key))]
        scope = {"type": "http", "method": "POST", "path": self.path, "headers": headers}
        await gate(scope, self._receive, self._send)

    async def _receive(self) -> MutableMapping[str, Any]:
        if len(self.halves) == 1:
            await self.ready.wait()
        return {"type": "http.request", "body": self.halves.pop(0), "more_body": bool(self.halves)}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if not self.reads:
            await asyncio.Event().wait()
        self.answered.append(message)


def opened(inside: Any) -> Gate:
    return Gate(inside, "Glioma Africa", lambda key: True)


@pytest.mark.parametrize("path", sorted(CHUNK_PATHS))
def test_a_few_chunks_are_in_flowers_hands_however_many_sites_send_one(path: str) -> None:
    async def go() -> tuple[int, list[bytes]]:
        crowd = Crowd()
        gate, lines = opened(crowd), [Line(path) for _ in range(20)]
        for line in lines:
            line.ready.set()
        async with asyncio.TaskGroup() as group:
            for line in lines:
                group.create_task(line.through(gate))
            await asyncio.sleep(0.05)
            crowd.let_go.set()
        return crowd.most, [line.answered[1]["body"] for line in lines]

    assert asyncio.run(go()) == (CHUNKS_AT_ONCE, [b"some"] * 20)


@pytest.mark.parametrize("stuck", ["sending", "reading"])
def test_sites_on_slow_lines_take_no_turn_from_others(stuck: str) -> None:
    async def go() -> list[MutableMapping[str, Any]]:
        crowd = Crowd()
        crowd.let_go.set()
        gate = opened(crowd)
        slow = [Line("/v1/fleet/push-object", reads=stuck == "sending") for _ in range(2 * CHUNKS_AT_ONCE)]
        if stuck == "reading":
            for line in slow:
                line.ready.set()
        waiting = [asyncio.create_task(line.through(gate)) for line in slow]
        await asyncio.sleep(0.05)
        quick = Line("/v1/fleet/push-object")
        quick.ready.set()
        await asyncio.wait_for(quick.through(gate), 5)
        for task in waiting:
            assert not task.done()
            task.cancel()
        return quick.answered

    assert [message["type"] for message in asyncio.run(go())] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize(
    ("path", "stuck"),
    [("/v1/fleet/push-object", "sending"), ("/v1/fleet/push-object", "reading"), ("/v1/fleet/pull-messages", "reading")],
)
def test_in_one_sites_name_only_so_much_is_kept_and_no_other_site_is_kept_out(path: str, stuck: str) -> None:
    async def go() -> tuple[list[int], int, int]:
        crowd = Crowd()
        crowd.let_go.set()
        gate = opened(crowd)
        held = [Line(path, reads=stuck == "sending") for _ in range(REQUESTS_OF_A_KEY)]
        if stuck == "reading":
            for line in held:
                line.ready.set()
        waiting = [asyncio.create_task(line.through(gate)) for line in held]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        too_many, another = Line(path), Line(path, key=b"NKDC")
        for line in (too_many, another):
            line.ready.set()
            await asyncio.wait_for(line.through(gate), 5)
        unread = len(too_many.halves)
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        once_one_has_gone = Line(path)
        once_one_has_gone.ready.set()
        await asyncio.wait_for(once_one_has_gone.through(gate), 5)
        for task in waiting:
            task.cancel()
        return [line.answered[0]["status"] for line in (too_many, another)], unread, once_one_has_gone.answered[0]["status"]

    assert asyncio.run(go()) == ([503, 200], 2, 200)


def test_a_site_that_leaves_in_mid_body_is_not_let_in() -> None:
    crowd = Crowd()

    async def leave() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        raise AssertionError("nobody is there")

    scope = {"type": "http", "method": "POST", "path": "/v1/fleet/push-object", "headers": [(b"content-length", b"4")]}
    asyncio.run(opened(crowd)(scope, leave, send))
    assert crowd.most == 0
