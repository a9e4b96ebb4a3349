"""``flower-server registry``: from the command line to two ports that are served, and their end in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from brainunet.allocation import return_memory_at_once
from brainunet.errors import BrainUNetError, FederationError
from brainunet.registry.agreed import MAX_REQUEST_BYTES, PING_S, PING_WAIT_S
from brainunet.registry.registry_pb2_grpc import add_RegistryServicer_to_server
from brainunet_server.addresses import server_address
from brainunet_server.authority import read_certificate_file
from brainunet_server.federation import FederationConfig, Folder, read_settings
from brainunet_server.record import say
from brainunet_server.registry.book import Book
from brainunet_server.registry.door import Door, ReaderDoor, SiteDoor
from brainunet_server.registry.entrance import Entrance
from brainunet_server.registry.limits import Counts, Limits
from brainunet_server.registry.servicer import Servicer
from brainunet_server.registry.shelf import Shelf
from brainunet_server.running import database_of
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import ReaderRow
from brainunet_server.store.writer import StoreWriter

STORE_WAIT_S: Final = 3.0
STOP_S: Final = 5.0  # for downloads under way, which go on elsewhere or later
CALLS_AT_ONCE: Final = 256  # at each port
CONNECTIONS: Final = 1000  # at each port

OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # else a second registry would share the port without a word
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_concurrent_streams", 16),  # of one connection
    ("grpc.max_allowed_incoming_connections", CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 60_000),  # without a call under way
    ("grpc.keepalive_time_ms", PING_S * 1000),
    ("grpc.keepalive_timeout_ms", PING_WAIT_S * 1000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_S * 500),  # pullers ask as often as we do
    ("grpc.http2.max_ping_strikes", 3),
)


@dataclass(frozen=True)
class RegistryOptions:
    """What the command line says beside the settings; None leaves the setting as it is. Port 0 is a free one."""

    database: str | None = None
    listen: str | None = None
    port: int | None = None
    readers_port: int | None = None


def serve_registry(folder: Folder, options: RegistryOptions, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: no federation in the folder, or keys, settings or a store that don't fit.
        FederationError: an address can't be had.
        KeyboardInterrupt: Ctrl-C.
    """
    return_memory_at_once()
    config = read_settings(folder)
    read_certificate_file(folder.ca_certificate)  # here for its message
    read_certificate_file(folder.server_certificate)
    with ExitStack() as stack:
        where = database_of(folder, config, options.database)
        writer = stack.enter_context(StoreWriter(where, wait_s=STORE_WAIT_S))
        reader = stack.enter_context(StoreReader(where, wait_s=STORE_WAIT_S))
        shelf = Shelf(folder.path, folder.published, reader.releases)
        releases = reader.releases()
        bad = shelf.look_at_all()
        free = sum(release.withdrawn_at is None for release in releases) - len(bad)
        said = f"{free} of {len(releases)} releases can be fetched" if releases else "nothing was published yet"
        say(f"{config.name}: {said}")
        book = Book(writer, folder.audit)
        if asyncio.run(_serve(ports(folder, config, options, limits, shelf, reader.readers, book))) == signal.SIGINT:
            raise KeyboardInterrupt


async def _serve(ports: AbstractAsyncContextManager[object]) -> signal.Signals:
    """Serve until a signal, and stop in order after either: left to itself, Ctrl-C would break off what callers are sent."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[signal.Signals] = loop.create_future()

    def end(by: signal.Signals) -> None:
        if not ended.done():
            ended.set_result(by)

    for by in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(by) != signal.SIG_IGN:  # as nohup and shells ask of what runs in the background
            loop.add_signal_handler(by, end, by)
    async with ports:
        stopped = await ended
    say("the registry is stopped")
    return stopped


@asynccontextmanager
async def ports(
    folder: Folder,
    config: FederationConfig,
    options: RegistryOptions,
    limits: Limits,
    shelf: Shelf,
    readers: Callable[[], Sequence[ReaderRow]],
    book: Book,
) -> AsyncIterator[tuple[int, int]]:
    """Both ports are served while the block runs; gives that of the sites and that of the readers.

    gRPC's Python can ask everybody for a certificate or nobody, so there is one port for those who have one, and another.

    Raises:
        FederationError: an address can't be had.
    """
    counts, listen = Counts(limits), options.listen or config.listen
    ca, key, certificate = _pems(folder)
    pair = ((key, certificate),)
    site_port = config.registry.port if options.port is None else options.port
    readers_port = config.registry.readers_port if options.readers_port is None else options.readers_port
    site_credentials = grpc.ssl_server_credentials(pair, root_certificates=ca, require_client_auth=True)
    ends: tuple[tuple[str, int, Door, Any], ...] = (
        ("sites", site_port, SiteDoor(folder.roster), site_credentials),
        ("readers", readers_port, ReaderDoor(readers, counts), grpc.ssl_server_credentials(pair)),
    )
    servers: list[Any] = []
    bound: list[int] = []
    try:
        for who, port, door, credentials in ends:
            server = grpc.aio.server(
                interceptors=(Entrance(door, counts),), options=OPTIONS, maximum_concurrent_rpcs=CALLS_AT_ONCE
            )
            add_RegistryServicer_to_server(Servicer(config.name, door, shelf, counts, book), server)
            health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
            bound.append(_bind(server, listen, port, credentials))
            await server.start()
            servers.append(server)
            say(f"the registry is served to {who} at {server_address(listen, bound[-1])}, reached as {config.host}")
        yield bound[0], bound[1]
    finally:
        await asyncio.gather(*(server.stop(STOP_S) for server in servers))


def _bind(server: Any, listen: str, port: int, credentials: Any) -> int:
    try:
        bound = int(server.add_secure_port(server_address(listen, port), credentials))
    except RuntimeError:
        bound = 0
    if not bound:
        raise FederationError(
            f"{listen} port {port}",
            found="it can't be listened on",
            remedy="stop the program that uses it, or choose another with --port, --readers-port or --listen",
        )
    return bound


def _pems(folder: Folder) -> tuple[bytes, bytes, bytes]:
    paths = (folder.ca_certificate, folder.server_key, folder.server_certificate)
    try:
        ca, key, certificate = (path.read_bytes() for path in paths)
    except OSError as error:
        raise BrainUNetError(
            str(folder.keys),
            found=f"the server's key can't be read: {error.strerror or error}",
            remedy="run this as the user who owns the folder",
        ) from None
    return ca, key, certificate
