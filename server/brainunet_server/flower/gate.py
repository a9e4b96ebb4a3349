"""The one door: the fleet paths that enrolled hospitals need, health, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from fastapi import FastAPI
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER

from brainunet import __version__
from brainunet.records import PROTOCOL

# Not among them: register-node and unregister-node. Sites are enrolled by the coordinator.
FLEET_PATHS: Final = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
# a chunk of an array is 1 MiB, and the list of a large model's chunks some hundred KiB
MAX_BODY_BYTES: Final = 4 * 2**20
BODY_S: Final = 300.0  # of silence; the client's own patience
# On these paths a chunk travels in the request or in the response, and Flower holds it several times over while it reads or
# makes it. So few are in its hands at once, however many sites there are.
CHUNK_PATHS: Final = frozenset({"/v1/fleet/push-object", "/v1/fleet/pull-object"})
CHUNKS_AT_ONCE: Final = 4
# A node has half a dozen requests under way. What a cut line leaves goes after BODY_S, or when the system gives up sending; so
# there is room for that, and an end to what one site, or a stranger who has learned its public key, makes the server keep.
REQUESTS_OF_A_KEY: Final = 32

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Gate:
    """Lets through the fleet paths, answers /health itself, and knows nothing else.

    Bodies have a limit, and are read only for those who name a key that is enrolled (Flower checks that they hold it): nobody
    else can make the server keep megabytes, and they ``REQUESTS_OF_A_KEY`` bodies or answers and no more.
    """

    def __init__(self, app: FastAPI, federation: str, knows: Callable[[bytes], bool]) -> None:
        self._app, self._knows = app, knows
        self._turns = asyncio.Semaphore(CHUNKS_AT_ONCE)
        self._under_way: Counter[bytes] = Counter()  # requests by key, of those that are enrolled
        self._health = json.dumps({"brainunet": __version__, "protocol": PROTOCOL, "federation": federation}).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/health":
            await _respond(send, 200, self._health)
        elif scope["path"] not in FLEET_PATHS or scope["method"] != "POST":
            await _respond(send, 404)
        elif (length := _content_length(scope)) is None:
            await _respond(send, 411)
        elif length > MAX_BODY_BYTES:
            await _respond(send, 413)
        elif not self._knows(key := _claimed_key(scope)):
            await _respond(send, 401)
        elif self._under_way[key] >= REQUESTS_OF_A_KEY:
            await _respond(send, 503)  # a node of ours tries again
        else:
            self._under_way[key] += 1
            try:
                way = self._in_turn if scope["path"] in CHUNK_PATHS else self._app
                await way(scope, _within(BODY_S, receive), send)
            finally:
                self._under_way[key] -= 1

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A turn begins when the whole body is here and ends before the response leaves: a slow line takes none from others."""
        parts: list[bytes] = []
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        answer: list[MutableMapping[str, Any]] = []

        async def whole() -> MutableMapping[str, Any]:
            if not parts:
                return await receive()
            body = b"".join(parts)
            parts.clear()
            return {"type": "http.request", "body": body, "more_body": False}

        async def keep(message: MutableMapping[str, Any]) -> None:
            answer.append(message)

        async with self._turns:
            await self._app(scope, whole, keep)
        for message in answer:
            await send(message)


def _content_length(scope: Scope) -> int | None:
    # uvicorn reads no more than this many bytes; a chunked body has no length, and no client of ours sends one
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(values[0]) if len(values) == 1 and values[0].isdigit() else None


def _claimed_key(scope: Scope) -> bytes:
    name = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()
    values = [value for key, value in scope["headers"] if key == name]
    try:
        return base64.b64decode(values[0], validate=True) if len(values) == 1 else b""
    except binascii.Error:
        return b""


def _within(seconds: float, receive: Receive) -> Receive:
    """Gives up a sender that sends nothing for so long."""

    async def receive_in_time() -> MutableMapping[str, Any]:
        try:
            return await asyncio.wait_for(receive(), seconds)
        except TimeoutError:
            return {"type": "http.disconnect"}

    return receive_in_time


async def _respond(send: Send, status: int, body: bytes = b"") -> None:
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
