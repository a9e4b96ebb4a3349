"""A kit and a reader's pass of one federation, and files like them that somebody edited."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from brainunet.certificates import make_request, new_site_key, read_request
from brainunet.errors import ConfigError
from brainunet.kit import Kit, open_kit, seal
from brainunet.reader_pass import ReaderPass, new_token, open_reader_pass, seal_reader_pass
from brainunet.records import Record
from brainunet.signing import SigningKey, new_signing_key
from tests.support.authority import DAY, new_authority, pem_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LIFE: dict[str, Any] = {"not_before": NOW - 10 * DAY, "not_after": NOW + 10 * DAY}  # of the site's certificate
SITE = "charite-berlin"
SITE_KEY = new_site_key()
REQUEST = read_request(make_request(SITE_KEY, SITE))
AUTHORITY = new_authority(not_before=NOW - 100 * DAY, not_after=NOW + 100 * DAY)
SIGNING_KEY = new_signing_key()
ANOTHER_KEY = new_signing_key()
TOKEN = new_token()

_FEDERATION: dict[str, Any] = {
    "federation": "Glioma, Straße 1",
    "ca_certificate": AUTHORITY.ca_pem,
    "signing_key": SIGNING_KEY.public.text,
    "issued_at": NOW,
}
_CERTIFICATE = pem_of(AUTHORITY.issue(REQUEST, **LIFE))


def kit(**changes: Any) -> Kit:
    fields = {
        "site": SITE,
        "server": "fl.example.org:8443",
        "site_certificate": _CERTIFICATE,
        "registry": "fl.example.org:8444",
    }
    return Kit(**_FEDERATION | fields | changes)


def reader_pass(**changes: Any) -> ReaderPass:
    fields = {"reader": "clinic-accra", "server": "fl.example.org:8445", "token": TOKEN, "expires_at": NOW + 30 * DAY}
    return ReaderPass(**_FEDERATION | fields | changes)


@dataclass(frozen=True)
class Sealed:
    """A kind of sealed file, and a good one of it.

    Attributes:
        name: as messages call it; purpose: what its signature is for.
        open_at: bytes or a path, and the time -> the record.
        optional: the fields without which it opens too.
        harmless: field -> the odd values with which it opens too.
        secret: what no message may repeat.
    """

    name: str
    purpose: str
    record: Record
    content: bytes
    open_at: Callable[..., Record]
    seal: Callable[[Any, SigningKey], bytes]
    optional: tuple[str, ...] = ()
    harmless: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    secret: str = "no secret"

    @property
    def told(self) -> dict[str, Any]:
        return dict(json.loads(self.content))

    @property
    def fields(self) -> list[str]:
        return [name for name in self.told if name not in ("checksum", "signature")]

    def resealed(self, told: dict[str, Any], key: SigningKey = SIGNING_KEY, *, signed: bool = True) -> bytes:
        """The file of whatever fields, with the right checksum and, if ``signed``, the right signature."""
        fields = {name: value for name, value in told.items() if name not in ("checksum", "signature")}
        content = canonical(fields)
        signature = key.sign(self.purpose, content) if signed else told.get("signature")
        return json.dumps({**fields, "checksum": hashlib.sha256(content).hexdigest(), "signature": signature}).encode()

    def refusal(self, content: bytes, *, now: datetime = NOW) -> ConfigError:
        with pytest.raises(ConfigError) as raised:
            self.open_at(content, now=now)
        assert self.secret not in str(raised.value)
        return raised.value


def canonical(fields: dict[str, Any]) -> bytes:
    """What a checksum and a signature are of."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


KIT = Sealed(
    "kit",
    "kit",
    kit(),
    seal(kit(), SIGNING_KEY),
    open_kit,
    seal,
    optional=("registry",),
    harmless={"federation": ("x", " "), "registry": ("",)},  # a poor name is one; a kit without a registry
)
PASS = Sealed(
    "reader pass",
    "reader-pass",
    reader_pass(),
    seal_reader_pass(reader_pass(), SIGNING_KEY),
    open_reader_pass,
    seal_reader_pass,
    harmless={"federation": ("x", " "), "reader": ("x",)},
    secret=TOKEN,
)
EVERY_KIND = (KIT, PASS)
