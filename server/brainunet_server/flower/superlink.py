"""Flower's SuperLink with one door: the fleet paths that enrolled hospitals need, over TLS, and nothing else.

Stock Flower serves on the same port the control of runs, the acquisition of tasks and its documentation, to anyone. Here
those routers do not exist in the process.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from flwr.common.constant import NOOP_FLWR_AID, Status, SubStatus
from flwr.supercore.constant import NOOP_FEDERATION_ID, NodeStatus, TaskType
from flwr.supercore.error import http_error_translator
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router as fleet_router
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from brainunet.errors import FederationError
from brainunet.flower_bundle import APP_ID, APP_VERSION, signed_bundle
from brainunet.signing import SigningKey
from brainunet_server.flower.connections import Impatient
from brainunet_server.flower.gate import Gate
from brainunet_server.flower.linkstate import LinkState

START_S: Final = 30


@dataclass(frozen=True)
class Node:
    """A site as Flower knows it."""

    id: int
    site: str
    online: bool
    last_heard: datetime | None


class SuperLink:
    """Flower's state and its web application.

    Args:
        objects: a folder for what travels; it is of no use after this process.
        federation: the name that ``/health`` tells.
    """

    def __init__(self, objects: Path, federation: str) -> None:
        self.state = LinkState(objects)
        self.app = Gate(_fleet_app(self), federation, self._knows)

    def _knows(self, public_key: bytes) -> bool:
        return self.state.is_admitted(public_key)

    def admit(self, site: str, public_key: ec.EllipticCurvePublicKey) -> None:
        """Let a site's node in; nothing changes for one that is in already."""
        self.state.create_node_of(public_key_to_bytes(public_key), site)

    def expel(self, site: str) -> None:
        """Shut a site's node out: its next request is refused."""
        for node in self.nodes():
            if node.site == site:
                self.state.delete_node(NOOP_FLWR_AID, node.id)

    def nodes(self) -> list[Node]:
        """The sites that were let in, by name."""
        told = self.state.get_node_info(statuses=[NodeStatus.REGISTERED, NodeStatus.ONLINE, NodeStatus.OFFLINE])
        nodes = [Node(n.node_id, n.name, n.status == NodeStatus.ONLINE, self.state.heard.get(n.node_id)) for n in told]
        return sorted(nodes, key=lambda node: node.site)

    def start_run(self, key: SigningKey) -> int:
        """Flower's number of a new run, in which messages can be sent; its bundle holds no code."""
        fab = signed_bundle(key)
        self.state.store_fab(fab)
        run: int = self.state.create_run(
            APP_ID, APP_VERSION, fab.hash_str, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        # no process of Flower's will take this run up: its rounds are conducted here
        task = self._task_of(run)
        self.state.claim_task(task)
        self.state.activate_task(task)
        self.state.never_expire(task)
        if self.state.get_run_status({run})[run].status != Status.RUNNING:
            raise FederationError("Flower's run", found="it did not start", expected="a running one")
        return run

    def end_run(self, run: int) -> None:
        self.state.finish_task(self._task_of(run), SubStatus.COMPLETED, "")
        self.state.forget_messages(run)

    def _task_of(self, run: int) -> int:
        task = self.state.get_run_info(run_ids=[run])[0].primary_task_id
        assert task is not None  # create_run made it
        return task


def _fleet_app(superlink: SuperLink) -> FastAPI:
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # the order is Flower's: errors are translated outermost, and a node is known before a handler sees its request
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
            Middleware(ProtobufTranslationMiddleware),
            Middleware(NodeAuthMiddleware),
            Middleware(BaseHTTPMiddleware, dispatch=_speaks_for_itself),
        ],
    )
    app.state.linkstate_factory = _Opened(superlink.state)
    app.state.enable_supernode_auth = True
    app.include_router(fleet_router)
    return app


@dataclass(frozen=True)
class _Opened:
    """What Flower's routers take for a factory of states."""

    opened: LinkState

    def state(self) -> LinkState:
        return self.opened


async def _speaks_for_itself(request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """Flower checks who sends a reply, but not that the reply names the sender."""
    from fastapi import HTTPException

    told: Any = getattr(request.state, "protobuf_request", None)
    for message in getattr(told, "messages_list", ()):
        if message.metadata.src_node_id != told.node.node_id:
            raise HTTPException(status_code=403, detail="a reply in the name of another node")
    return await call_next(request)


@contextmanager
def listening(superlink: SuperLink, address: str, port: int, certificate: Path, key: Path) -> Iterator[int]:
    """Serve in a thread while the block runs; gives the port (a free one for 0).

    Raises:
        FederationError: the address can't be had.
    """
    try:
        listener = socket.create_server(
            (address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=256
        )
    except OSError as error:
        raise FederationError(
            f"{address} port {port}",
            found=f"it can't be listened on ({error.strerror or error})",
            remedy="stop the program that uses it, or choose another with --port or --listen",
        ) from None
    server = uvicorn.Server(
        uvicorn.Config(
            superlink.app,
            log_config=None,  # uvicorn would set up logging of its own; see serve.py
            log_level="warning",
            access_log=False,
            lifespan="off",
            ssl_certfile=certificate,
            ssl_keyfile=key,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
            http=Impatient,  # of h11: the faster httptools reads headers without any limit
            ws="none",
            h11_max_incomplete_event_size=64 * 1024,
        )
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), name="fleet", daemon=True)
    thread.start()
    for _ in range(START_S * 20):
        if server.started or not thread.is_alive():
            break
        thread.join(0.05)
    if not server.started:
        listener.close()
        raise FederationError(f"{address} port {port}", found="the listener did not start", remedy="look at the log above")
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
