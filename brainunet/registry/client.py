"""The registry as its caller sees it: a list, a description, and a stream of bytes from any place on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import grpc
from pydantic import ValidationError

from brainunet import __version__
from brainunet.registry.access import Access
from brainunet.registry.agreed import AUTHORIZATION, MAX_MESSAGE_BYTES, MOST_LISTED, PING_S, PING_WAIT_S
from brainunet.registry.records import Described, Release, not_as_agreed
from brainunet.registry.registry_pb2 import DescribeRequest, DownloadRequest, ListRequest
from brainunet.registry.registry_pb2_grpc import RegistryStub
from brainunet.registry.troubles import Passing, explained

CALL_S: Final = 30.0  # patience with an answer
STALL_S: Final = 120.0  # with the next chunk: a line of 20 kbit/s brings one

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", PING_S * 1000),
    ("grpc.keepalive_timeout_ms", PING_WAIT_S * 1000),
    ("grpc.use_local_subchannel_pool", 1),  # a new Registry is a new connection
    ("grpc.enable_retries", 0),  # `fetch` does that, and knows from where on
    ("grpc.primary_user_agent", f"brainunet-fl/{__version__}"),
)


@dataclass(frozen=True)
class Listing:
    """All releases, the newest first, and the name by which the registry calls its federation."""

    federation: str
    releases: tuple[Release, ...]


class Registry:
    """A connection to a registry, made with the first question."""

    def __init__(self, access: Access) -> None:
        self.access = access
        credentials = grpc.ssl_channel_credentials(
            access.ca_certificate.encode(), access.key or None, access.certificate.encode() or None
        )
        self._channel = grpc.secure_channel(access.server, credentials, _OPTIONS)
        self._stub: Any = RegistryStub(self._channel)
        self._metadata = ((AUTHORIZATION, f"Bearer {access.token}"),) if access.token else ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._channel.close()

    def listing(self) -> Listing:
        """
        Raises:
            FederationError: the registry can't be reached, does not let the caller in, or says what no registry says.
        """
        reply = self._answer(self._stub.List, ListRequest())
        if len(reply.releases) > MOST_LISTED:
            raise not_as_agreed(self.access.server, f"more than {MOST_LISTED} releases")
        releases = (Release.told(message, self.access.server) for message in reply.releases)
        newest_first = sorted(releases, key=lambda release: (release.published_at, release.name), reverse=True)
        return Listing(self.access.federation, tuple(newest_first))

    def describe(self, name: str) -> Described:
        """A release with its signature.

        Raises:
            FederationError: as :meth:`listing`, or there is no such release.
        """
        reply = self._answer(self._stub.Describe, DescribeRequest(name=name))
        release = Release.told(reply.release, self.access.server)
        if release.name != name:
            raise not_as_agreed(self.access.server, "an answer about another release")
        try:
            return Described(release=release, signature=reply.signature)
        except ValidationError:
            raise not_as_agreed(self.access.server, "a release without a signature") from None

    def chunks(self, release: Release, offset: int) -> Iterator[bytes]:
        """The bytes of a release's file from ``offset`` on, never more than there are; it may end before the last.

        Raises:
            Passing: the line was cut, nothing came for two minutes, or the registry asks to wait.
            FederationError: the registry does not give it out, or sends something else.
        """
        call = self._stub.Download(
            DownloadRequest(name=release.name, offset=offset, sha256=release.sha256), metadata=self._metadata
        )
        began = False
        with _watched(call) as watch:
            try:
                for chunk in call:
                    if chunk.offset != offset or not chunk.data or offset + len(chunk.data) > release.size_bytes:
                        raise not_as_agreed(self.access.server, "other bytes than those asked for")
                    watch.came()
                    began, offset = True, offset + len(chunk.data)
                    yield chunk.data
            except grpc.RpcError as error:
                if watch.gave_up:
                    raise Passing(self.access.server, found=f"nothing came for {STALL_S:.0f} s", remedy="try again") from None
                raise explained(error, self.access, began=began) from None

    def _answer(self, ask: Any, request: Any) -> Any:
        try:
            return ask(request, timeout=CALL_S, metadata=self._metadata)
        except grpc.RpcError as error:
            raise explained(error, self.access) from None


class _Watch:
    """Ends a call on which nothing comes: a server that only answers signs of life would be waited for for ever."""

    def __init__(self, call: grpc.Call) -> None:
        self._call, self._over = call, threading.Event()
        self._last = time.monotonic()
        self.gave_up = False
        self._thread = threading.Thread(target=self._look, name="download", daemon=True)

    def came(self) -> None:
        self._last = time.monotonic()

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._call.cancel()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(min(1.0, STALL_S / 4)):
            if time.monotonic() - self._last > STALL_S:
                self.gave_up = True
                self._call.cancel()
                return


@contextmanager
def _watched(call: grpc.Call) -> Iterator[_Watch]:
    watch = _Watch(call)
    watch.start()
    try:
        yield watch
    finally:
        watch.end()
