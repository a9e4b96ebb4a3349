"""A site that asks to join, and the kit that comes back by mail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brainunet import chain
from brainunet.kit import Kit
from brainunet_client.enrolment import install_kit, make_request
from brainunet_client.home import Home, open_home
from tests.support.coordinator import SERVER, Coordinator, coordinator


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def yes(kit: Kit, fingerprint: str) -> bool:
    return True


def no(kit: Kit, fingerprint: str) -> bool:
    return False


def never(kit: Kit, fingerprint: str) -> bool:
    raise AssertionError("nobody should be asked about a bad kit")


def sent_kit(home: Home, by: Coordinator | None = None, **changes: Any) -> Path:
    """A kit for the request of this home, as a file that came by mail."""
    assert home.request is not None
    path = home.path.parent / "lagos.kit"
    path.write_bytes((by or coordinator()).kit(home.request.read_bytes(), **changes))
    return path


def enrolled(home: Home) -> Home:
    make_request(home, "lagos", SERVER)
    return home


def joined(home: Home) -> Home:
    install_kit(enrolled(home), sent_kit(home), yes)
    return home


def kinds(home: Home) -> list[str]:
    return [entry.kind for entry in chain.entries(home.ledger)]
