"""Who may connect to the running server, and who does: the roster's sites as nodes of Flower."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from brainunet.certificates import read_certificate
from brainunet_server.federation import Folder
from brainunet_server.presence import Seen
from brainunet_server.roster import EnrolledSite, Roster, read_roster
from brainunet_server.status import SiteState
from brainunet_server.store.rows import SiteSeen

LOOK_AGAIN_S: Final = 600.0  # certificates end without any change of the roster


class Node(Seen, Protocol):
    @property
    def online(self) -> bool: ...


class Door(Protocol):
    """What lets sites in (``brainunet_server.flower.superlink.SuperLink``)."""

    def admit(self, site: str, public_key: ec.EllipticCurvePublicKey) -> None: ...
    def expel(self, site: str) -> None: ...
    def nodes(self) -> Sequence[Node]: ...


class Membership:
    """Follows ``roster.json`` while the server runs.

    Args:
        silence_s: a site from which nothing was heard for so long is not connected.
    """

    def __init__(self, folder: Folder, door: Door, silence_s: int) -> None:
        self._file, self._door, self._silence = folder.roster, door, timedelta(seconds=silence_s)
        self._read_at: tuple[int, int] | None = None
        self._looked_at = 0.0
        self._keys: dict[str, str] = {}  # site -> the key with which it was let in
        self.roster = Roster()

    @property
    def size(self) -> int:
        """How many sites may connect."""
        return len(self._keys)

    @property
    def revoked(self) -> list[str]:
        """Also those whose certificate has ended."""
        return sorted(set(self.roster.sites) - set(self._keys))

    def nodes(self) -> Sequence[Node]:
        return self._door.nodes()

    def follow(self) -> None:
        """Let in whom the roster names, and shut out whom it no longer does.

        Raises:
            ConfigError: the roster is missing or damaged; who was in stays in.
        """
        changed_at = file_version(self._file)
        if changed_at is not None and changed_at == self._read_at and time.monotonic() - self._looked_at < LOOK_AGAIN_S:
            return
        roster = read_roster(self._file)
        active = {site.name: site for site in roster.active() if not _is_expired(site.certificate)}
        for name, key in list(self._keys.items()):
            if name not in active or active[name].public_key_id != key:
                self._door.expel(name)
                del self._keys[name]
        for name, site in active.items():
            public = load_pem_public_key(site.pem)
            assert isinstance(public, ec.EllipticCurvePublicKey)
            self._door.admit(name, public)
            self._keys[name] = site.public_key_id
        self.roster, self._read_at, self._looked_at = roster, changed_at, time.monotonic()

    def connected(self) -> list[str]:
        """The sites that can be asked. Flower alone takes a site for online for twenty minutes after its power went."""
        now = datetime.now(UTC)
        return [
            node.site
            for node in self.nodes()
            if node.online and node.last_heard is not None and now - node.last_heard < self._silence
        ]

    def seen(self, states: tuple[SiteState, ...]) -> list[SiteSeen]:
        """These states as the store's rows."""
        return [_seen(state, self.roster.sites[state.name]) for state in states if state.name in self.roster.sites]


def file_version(file: Path) -> tuple[int, int] | None:
    """Of a file that is replaced with every change; None if it can't be seen."""
    try:
        seen = file.stat()
    except OSError:  # reading it says why
        return None
    return seen.st_mtime_ns, seen.st_ino


def _is_expired(certificate: str) -> bool:
    return read_certificate(certificate).not_valid_after_utc < datetime.now(UTC)


def _seen(state: SiteState, enrolled: EnrolledSite) -> SiteSeen:
    return SiteSeen(
        name=state.name,
        state=state.state,
        last_seen_at=state.last_seen,
        client_version=state.client_version,
        enrolled_at=enrolled.enrolled_at,
        revoked_at=enrolled.revoked_at,
        certificate_expires_at=read_certificate(enrolled.certificate).not_valid_after_utc,
    )
