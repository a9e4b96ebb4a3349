"""Who is in the federation: each site's key and certificate, and the keys that were revoked, in ``roster.json``."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from brainunet.certificates import public_key_id, read_certificate
from brainunet.errors import BrainUNetError, ConfigError, UsageError
from brainunet.moments import day
from brainunet.records import Name
from brainunet.settings import Settings, nearest

KeyId: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{16,128}$")]

MAX_ROSTER_BYTES = 64_000_000  # a thousand sites take about 2 MB


class EnrolledSite(Settings):
    """A site's line.

    Attributes:
        certificate: the latest, as PEM; ``serials`` of all that were issued to it, in hexadecimal.
        public_key_id: of the key it has now; ``former_keys`` are those it may never use again.
        revoked_at: since when its key is no longer accepted, and ``reason`` why; None for an active site.
    """

    certificate: Annotated[str, Field(max_length=20_000)]
    public_key_id: KeyId
    enrolled_at: AwareDatetime
    revoked_at: AwareDatetime | None = None
    reason: str | None = None
    serials: tuple[str, ...]
    former_keys: tuple[KeyId, ...] = ()

    @model_validator(mode="after")
    def _certificate_is_of_this_key(self) -> EnrolledSite:
        if public_key_id(_ec_key(self.certificate)) != self.public_key_id:
            raise ValueError("the certificate is of another key")
        return self


@dataclass(frozen=True)
class ActiveSite:
    """A site that may connect; ``pem`` is its public key (SubjectPublicKeyInfo), with which Flower knows a node."""

    name: str
    public_key_id: str
    certificate: str
    pem: bytes


class Roster(Settings):
    """All sites by name. It is never changed: each step gives the roster that follows."""

    format: Literal["brainunet-roster-1"] = "brainunet-roster-1"
    sites: dict[Name, EnrolledSite] = Field(default_factory=dict)

    def site(self, name: str) -> EnrolledSite:
        """The line of ``name``.

        Raises:
            UsageError: there is none.
        """
        if name not in self.sites:
            known = nearest(name, sorted(self.sites)) if self.sites else "no site is enrolled yet"
            raise UsageError(name, found=f"no site of this name ({known})", remedy="see them all: flower-server sites DIR")
        return self.sites[name]

    def require_admissible(self, name: str, key_id: str, *, replace: bool = False) -> bool:
        """Whether this key is this site's already; False says that it may become so.

        Raises:
            ConfigError: the key was revoked or is another site's, or the site has another key and ``replace`` is not said.
        """
        for other, line in self.sites.items():
            if key_id in line.former_keys or (key_id == line.public_key_id and line.revoked_at is not None):
                raise ConfigError(
                    name,
                    found=f"a key that was revoked (as {other}'s)",
                    expected="a key that was never revoked",
                    remedy="ask the site to make a new key and a new request",
                )
            if key_id == line.public_key_id and other != name:
                remedy = "ask the site which name is right; each site has a key of its own"
                raise ConfigError(name, found=f"the key of the site {other}", expected="a key of its own", remedy=remedy)
        known = self.sites.get(name)
        if known is None or known.revoked_at is not None:
            return False
        if known.public_key_id == key_id:
            return True
        if not replace:
            raise ConfigError(
                name,
                found="a request with another key than this site is enrolled with",
                expected="the same key",
                remedy="ask the site by telephone; if the new key is right, revoke the site first or say --replace",
            )
        return False

    def with_enrolled(self, name: str, certificate: x509.Certificate, at: datetime) -> Roster:
        """``name`` with this certificate and its key; a key that it had before never comes back."""
        key_id, earlier = public_key_id(_ec_key(_pem(certificate))), self.sites.get(name)
        former: tuple[str, ...] = ()
        if earlier is not None:
            former = tuple(dict.fromkeys((*earlier.former_keys, earlier.public_key_id)))
        line = EnrolledSite(
            certificate=_pem(certificate),
            public_key_id=key_id,
            enrolled_at=at,
            serials=(*(earlier.serials if earlier else ()), _serial(certificate)),
            former_keys=former,
        )
        return self._with(name, line)

    def with_renewed(self, name: str, certificate: x509.Certificate) -> Roster:
        """``name`` with a later certificate for the same key.

        Raises:
            UsageError: no such site.
            ConfigError: it was revoked.
        """
        line = self.site(name)
        self.require_active(name)
        serials = (*line.serials, _serial(certificate))
        return self._with(name, line.model_copy(update={"certificate": _pem(certificate), "serials": serials}))

    def with_revoked(self, name: str, reason: str, at: datetime) -> Roster:
        """``name`` without its right to connect.

        Raises:
            UsageError: no such site.
            ConfigError: it was revoked before.
        """
        line = self.site(name)
        self.require_active(name)
        return self._with(name, line.model_copy(update={"revoked_at": at, "reason": reason}))

    def require_active(self, name: str) -> None:
        """Pass if ``name`` may connect.

        Raises:
            UsageError: no such site.
            ConfigError: it was revoked.
        """
        line = self.site(name)
        if line.revoked_at is not None:
            raise ConfigError(
                name,
                found=f"revoked on {day(line.revoked_at)} ({line.reason})",
                expected="a site that is not revoked",
                remedy="to take it back, enrol it with a new key",
            )

    def active(self) -> tuple[ActiveSite, ...]:
        """The sites that may connect, by name; when their certificates end is not looked at."""
        return tuple(_active(name, line) for name, line in sorted(self.sites.items()) if line.revoked_at is None)

    def content(self) -> bytes:
        """What the file holds."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    def _with(self, name: str, line: EnrolledSite) -> Roster:
        return Roster(sites={**self.sites, name: line})


def read_roster(path: Path) -> Roster:
    """The roster in a file.

    Raises:
        ConfigError: missing or damaged. It is never taken for an empty one: revoked keys would come back.
        BrainUNetError: it may not be read.
    """
    try:
        if path.stat().st_size > MAX_ROSTER_BYTES:
            raise ValueError
        return Roster.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(path, found="it is missing", expected="the list of sites", remedy=_RESTORE) from None
    except OSError as error:
        remedy = "run this as the user who owns the folder"
        raise BrainUNetError(path, found=f"it can't be read: {error.strerror or error}", remedy=remedy) from None
    except (ValidationError, ValueError, ConfigError):  # the last of a certificate that is none
        raise ConfigError(path, found="a damaged list", expected="the list of sites", remedy=_RESTORE) from None


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Wait for one's turn to read, change and write the roster of this name; other processes wait for theirs.

    Raises:
        BrainUNetError: the folder can't be written.
    """
    lock = path.with_name(f".{path.name}.lock")  # a file of its own: the roster's changes with every writing
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        remedy = "run this as the user who owns the folder"
        raise BrainUNetError(str(path.parent), found=f"it can't be written: {error.strerror or error}", remedy=remedy) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


_RESTORE = "restore it from your backup; an empty list would let revoked keys come back"


def _active(name: str, line: EnrolledSite) -> ActiveSite:
    key = _ec_key(line.certificate)
    return ActiveSite(
        name=name,
        public_key_id=line.public_key_id,
        certificate=line.certificate,
        pem=key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def _ec_key(certificate: str) -> ec.EllipticCurvePublicKey:
    key = read_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("a key that is no EC key")
    return key


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _serial(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"
