"""Rosters with sites of real keys and certificates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from brainunet.certificates import make_request, new_site_key, read_request
from brainunet_server.authority import Authority, certify_site, make_authority
from brainunet_server.roster import Roster

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Enrol: TypeAlias = Callable[[Roster, str, int], Roster]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority("Glioma Africa")


@pytest.fixture(scope="module")
def keys() -> list[ec.EllipticCurvePrivateKey]:
    return [new_site_key() for _ in range(3)]


@pytest.fixture(scope="module")
def enrol(authority: Authority, keys: list[ec.EllipticCurvePrivateKey]) -> Enrol:
    """A roster with one site more: its name, and which of the keys it has."""

    def enrolled(roster: Roster, name: str, key: int) -> Roster:
        return roster.with_enrolled(name, certify_site(authority, read_request(make_request(keys[key], name))), NOW)

    return enrolled
