"""Who calls: a site by its certificate and the roster, a reader by the token of its pass and the store."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.parse import unquote

import grpc

from brainunet.certificates import public_key_id, read_certificate
from brainunet.errors import BrainUNetError, ConfigError
from brainunet.moments import day
from brainunet.registry.agreed import AUTHORIZATION
from brainunet_server.membership import file_version
from brainunet_server.registry.limits import Counts
from brainunet_server.registry.refusing import Refused, please_wait
from brainunet_server.roster import Roster, read_roster
from brainunet_server.store.rows import ReaderRow

FRESH_S: Final = 0.2  # for so long what the store said of the readers holds
SLOWED_S: Final = 1.0  # an answer to a wrong token takes so much longer
_BEARER: Final = "Bearer "
_MAX_TOKEN: Final = 200  # characters


@dataclass(frozen=True)
class Caller:
    """Who calls; ``credential`` is what it was known by: the id of a site's key, or the SHA-256 of a token."""

    kind: Literal["site", "reader"]
    name: str
    credential: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Door(Protocol):
    async def caller(self, context: Any) -> Caller:
        """Who makes the call with this context.

        Raises:
            Refused: nobody who may.
        """

    async def recheck(self, caller: Caller) -> None:
        """
        Raises:
            Refused: it was let in and may no longer be.
        """


class SiteDoor:
    """Sites, whose certificates TLS has checked: the roster must say that the key is an active site's."""

    def __init__(self, roster: Path) -> None:
        self._file = roster
        self._read_at: tuple[int, int] | None = None
        self._roster = Roster()

    async def caller(self, context: Any) -> Caller:
        shown = context.auth_context().get("x509_pem_cert", ())
        if len(shown) != 1:
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "no certificate; this port is for sites, and readers have another")
        key_id, trouble = _shown(bytes(shown[0]), datetime.now(UTC).replace(second=0, microsecond=0))
        if trouble:
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, f"its certificate {trouble}; ask the coordinator for a new kit")
        return self._known(key_id)

    async def recheck(self, caller: Caller) -> None:
        self._known(caller.credential)

    def _known(self, key_id: str) -> Caller:
        for name, line in self._current().sites.items():
            if key_id == line.public_key_id and line.revoked_at is None:
                return Caller("site", name, key_id)
            if key_id == line.public_key_id and line.revoked_at is not None:
                words = f"it was put out of the federation on {day(line.revoked_at, UTC)}; ask the coordinator"
                raise Refused(grpc.StatusCode.PERMISSION_DENIED, words)
            if key_id in line.former_keys:
                words = f"its key was replaced by a newer one of {name}; use the newer kit"
                raise Refused(grpc.StatusCode.PERMISSION_DENIED, words)
        raise Refused(
            grpc.StatusCode.PERMISSION_DENIED, "its key is not on the list of sites; ask the coordinator to enrol it again"
        )

    def _current(self) -> Roster:
        try:
            version = file_version(self._file)
            if version is None or version != self._read_at:
                self._roster, self._read_at = read_roster(self._file), version
        except BrainUNetError:  # nobody is let in by an older list: it may be the revocation that can't be read
            raise Refused(grpc.StatusCode.DATA_LOSS, "its list of sites can't be read; tell the coordinator") from None
        return self._roster


class ReaderDoor:
    """Readers: the SHA-256 of a token must be one that the store knows.

    Args:
        readers: what the store says.
        counts: of wrong tokens.
    """

    def __init__(self, readers: Callable[[], Sequence[ReaderRow]], counts: Counts) -> None:
        self._ask, self._counts = readers, counts
        self._readers: Sequence[ReaderRow] = ()
        self._asked_at = float("-inf")

    async def caller(self, context: Any) -> Caller:
        said = [value for key, value in context.invocation_metadata() or () if key == AUTHORIZATION]
        token = said[0] if len(said) == 1 and isinstance(said[0], str) else ""
        if not token.startswith(_BEARER) or len(token) > _MAX_TOKEN:
            await self._wrong(context)
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "no pass; this port is for readers, and sites have another")
        sha256 = hashlib.sha256(token.removeprefix(_BEARER).encode()).hexdigest()
        found = await self._find(sha256)
        if found is None:
            await self._wrong(context)
            raise _unknown()
        return _admitted(found)

    async def recheck(self, caller: Caller) -> None:
        found = await self._find(caller.credential)
        if found is None:
            raise _unknown()
        _admitted(found)

    async def _find(self, sha256: str) -> ReaderRow | None:
        if time.monotonic() - self._asked_at > FRESH_S:
            try:
                self._readers = await asyncio.to_thread(self._ask)
            except BrainUNetError:
                raise please_wait("its store can't be read at present; try again in a minute", 60) from None
            self._asked_at = time.monotonic()
        found = None
        for reader in self._readers:  # all of them, so that the time says nothing
            if hmac.compare_digest(reader.token_sha256, sha256):
                found = reader
        return found

    async def _wrong(self, context: Any) -> None:
        self._counts.wrong_token(address_of(context.peer()))
        await asyncio.sleep(SLOWED_S)


def address_of(peer: str) -> str:
    """The address in gRPC's word for the other end; all of an IPv6 network of a customer (/64) count as one.

    >>> address_of("ipv4:192.0.2.7:50112"), address_of("ipv6:%5B2001:db8:1:2:3::7%5D:50112")
    ('192.0.2.7', '2001:db8:1:2::/64')
    """
    bare = unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return "elsewhere"
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)


def _admitted(reader: ReaderRow) -> Caller:
    if reader.revoked_at is not None:
        words = f"the pass of {reader.name} was revoked on {day(reader.revoked_at, UTC)}; ask the coordinator for a new one"
        raise Refused(grpc.StatusCode.PERMISSION_DENIED, words)
    if datetime.now(UTC) >= reader.expires_at:
        words = f"the pass of {reader.name} has expired on {day(reader.expires_at, UTC)}; ask the coordinator for a new one"
        raise Refused(grpc.StatusCode.PERMISSION_DENIED, words)
    return Caller("reader", reader.name, reader.token_sha256)


def _unknown() -> Refused:
    return Refused(grpc.StatusCode.UNAUTHENTICATED, "its pass is not known here; use the one that the coordinator sent last")


@lru_cache(maxsize=1024)
def _shown(pem: bytes, now: datetime) -> tuple[str, str | None]:
    """The id of a certificate's key, and why it is not valid ``now``."""
    try:
        certificate = read_certificate(pem)
    except ConfigError:
        return "", "can't be read"
    trouble = None
    if now > certificate.not_valid_after_utc:
        trouble = f"has expired on {day(certificate.not_valid_after_utc, UTC)}"
    return public_key_id(certificate.public_key()), trouble
