"""The answers of the registry; the messages are those of ``brainunet/registry/registry.proto``."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from typing import Any, Final

import grpc

from brainunet.moments import iso
from brainunet.registry.agreed import CHUNK_BYTES, MOST_LISTED
from brainunet.registry.registry_pb2 import (
    Chunk,
    DescribeRequest,
    Description,
    DownloadRequest,
    ListReply,
    ListRequest,
    Release,
)
from brainunet.registry.registry_pb2_grpc import RegistryServicer
from brainunet_server.registry.book import Book
from brainunet_server.registry.door import Caller, Door
from brainunet_server.registry.entrance import CALLER
from brainunet_server.registry.limits import Counts
from brainunet_server.registry.refusing import Refused
from brainunet_server.registry.shelf import Shelf, require_free
from brainunet_server.store.rows import DownloadRow, ReleaseRow

BLOCK_BYTES: Final = 4 * CHUNK_BYTES  # read at once; what a download takes of memory, with what the line holds
STALL_S: Final = 60.0  # a caller who takes no chunk for so long has gone
RECHECK_S: Final = 5.0  # how often a download that is under way asks whether it still may be


class Servicer(RegistryServicer):  # type: ignore[misc] # generated
    """The answers at one of the two ports.

    Args:
        federation: its name.
        door: of the port.
        shelf, counts, book: those of both ports.
    """

    def __init__(self, federation: str, door: Door, shelf: Shelf, counts: Counts, book: Book) -> None:
        self._federation, self._door, self._shelf, self._counts, self._book = federation, door, shelf, counts, book

    async def List(self, request: ListRequest, context: Any) -> ListReply:  # noqa: N802 - gRPC\'s spelling
        releases = await asyncio.to_thread(self._shelf.releases)
        return ListReply(federation=self._federation, releases=[_message(release) for release in releases[:MOST_LISTED]])

    async def Describe(self, request: DescribeRequest, context: Any) -> Description:  # noqa: N802 - gRPC\'s spelling
        release = await asyncio.to_thread(self._shelf.release, request.name)
        card = await asyncio.to_thread(self._shelf.card, release)
        signature = await asyncio.to_thread(self._shelf.signature, release)
        return Description(release=_message(release), card=card, signature=signature)

    async def Download(self, request: DownloadRequest, context: Any) -> None:  # noqa: N802 - gRPC\'s spelling
        caller = CALLER.get()
        release = await asyncio.to_thread(self._shelf.release, request.name)
        _require_same(request, release)
        with self._counts.download(str(caller)):
            descriptor = await asyncio.to_thread(self._shelf.opened, release)
            sending = _Sending(caller, release, request.offset)
            try:
                await self._send(sending, descriptor, context)
            finally:
                os.close(descriptor)
                if sending.sent:
                    await asyncio.shield(asyncio.to_thread(self._book.note, sending.row, release.sha256))

    async def _send(self, sending: _Sending, descriptor: int, context: Any) -> None:
        checked_at = time.monotonic()
        while sending.at < sending.release.n_bytes:
            if time.monotonic() - checked_at > RECHECK_S:
                await self._door.recheck(sending.caller)
                require_free(await asyncio.to_thread(self._shelf.release, sending.release.name))
                checked_at = time.monotonic()
            # in a thread: a disk that is slow to answer would keep every other caller waiting
            block = await asyncio.to_thread(os.pread, descriptor, BLOCK_BYTES, sending.at)
            if not block:
                raise Refused(grpc.StatusCode.DATA_LOSS, "its file was cut short; tell the coordinator")
            for start in range(0, len(block), CHUNK_BYTES):
                data = block[start : start + CHUNK_BYTES]
                self._counts.sent(str(sending.caller), len(data))
                try:
                    await asyncio.wait_for(context.write(Chunk(offset=sending.at, data=data)), STALL_S)
                except TimeoutError:
                    raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing was taken for {STALL_S:.0f} s") from None
                sending.at += len(data)


class _Sending:
    """A download under way; it began at byte ``begun`` and is at byte ``at``."""

    def __init__(self, caller: Caller, release: ReleaseRow, begun: int) -> None:
        self.caller, self.release, self.begun, self.at = caller, release, begun, begun
        self._began_at = datetime.now(UTC)

    @property
    def sent(self) -> int:
        return self.at - self.begun

    @property
    def row(self) -> DownloadRow:
        return DownloadRow(
            release=self.release.name,
            who=self.caller.name,
            kind=self.caller.kind,
            at=self._began_at,
            n_bytes=self.sent,
            whole=self.at == self.release.n_bytes,
        )


def _require_same(request: DownloadRequest, release: ReleaseRow) -> None:
    if request.sha256 and request.sha256 != release.sha256:
        words = "the bytes that are there already are of another file; remove FILE.part and fetch it anew"
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, words)
    if request.offset > release.n_bytes:
        raise Refused(grpc.StatusCode.OUT_OF_RANGE, f"the file has {release.n_bytes} bytes")


def _message(release: ReleaseRow) -> Release:
    return Release(
        name=release.name,
        run=release.run_id,
        round=release.round,
        size_bytes=release.n_bytes,
        sha256=release.sha256,
        weights_sha256=release.weights_sha256,
        published_at=iso(release.published_at),
        notes=release.notes[:2000],
        withdrawn=release.withdrawn_at is not None,
        withdrawn_reason=(release.withdrawn_reason or "")[:2000],
    )
