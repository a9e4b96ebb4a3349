"""A reader's pass: with it somebody who is no site of a federation fetches the models that it published.

It holds a secret: whoever has the file is the reader. The coordinator keeps only the token's SHA-256. How it is sealed, and
why people compare its fingerprint: ``brainunet.sealed``.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field

from brainunet import sealed
from brainunet.addresses import host_and_port
from brainunet.certificates import read_certificate
from brainunet.moments import local
from brainunet.records import Name, Record
from brainunet.signing import PublicKey, SigningKey

PURPOSE: Final = "reader-pass"
TOKEN_BYTES: Final = 32

_KIND: Final = sealed.Kind(
    "reader pass", PURPOSE, "brainunet-reader-1", "ask the coordinator for a new pass, over a way that nobody else reads"
)


class ReaderPass(Record):
    """Who the federation is, and the secret by which its registry knows a reader.

    Attributes:
        federation: its name, for people.
        reader: the name that the coordinator gave to the reader.
        server: where the registry listens for readers, ``host:port`` (IPv6 in brackets).
        ca_certificate: PEM of the authority that issued the server's certificate.
        signing_key: the coordinator's public signing key in base64; models are signed with it.
        token: the secret, 32 random bytes in URL-safe base64 without padding; never shown.
        issued_at: when the pass was made; after ``expires_at`` the registry refuses it.
    """

    format: Literal["brainunet-reader-1"] = "brainunet-reader-1"
    federation: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\P{C}+$")]  # no control characters
    reader: Name
    server: Annotated[str, Field(max_length=260)]
    ca_certificate: str
    signing_key: str
    token: Annotated[str, Field(repr=False, pattern=r"^[A-Za-z0-9_-]{43}$")]
    issued_at: Annotated[AwareDatetime, Field(strict=True)]
    expires_at: Annotated[AwareDatetime, Field(strict=True)]

    @property
    def fingerprint(self) -> str:
        """The same that the kits of the federation's sites show, see :func:`brainunet.sealed.federation_fingerprint`.

        Raises:
            ConfigError: authority or key are not readable; never of a pass that was read.
        """
        ca = read_certificate(self.ca_certificate, "reader pass")
        return sealed.federation_fingerprint(ca, PublicKey.from_text(self.signing_key))


def new_token() -> str:
    """A secret that nobody guesses: 32 random bytes, 43 characters."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_sha256(token: str) -> str:
    """What the coordinator keeps of a token: enough to know it again, too little to be the reader.

    Thirty-two random bytes need no salt and no slow hash: nobody can try them all.
    """
    return hashlib.sha256(token.encode()).hexdigest()


def seal_reader_pass(reader_pass: ReaderPass, signing_key: SigningKey) -> bytes:
    """The content of a pass's file: its fields, a checksum and a signature, as JSON. It holds the secret.

    Raises:
        ValueError: the pass names another signing key.
    """
    return sealed.seal(reader_pass, _KIND, signing_key)


def open_reader_pass(source: Path | bytes, *, now: datetime | None = None) -> ReaderPass:
    """The pass in a file (or its content), if it can be used ``now``.

    Raises:
        ConfigError: as :func:`read_reader_pass`, a pass that has expired, or an authority that is not valid.
    """
    opened, moment = read_reader_pass(source), now or datetime.now(UTC)
    where = source if isinstance(source, Path) else "reader pass"
    sealed.require_valid(opened.ca_certificate, "the federation's authority", _KIND, where, moment)
    if moment >= opened.expires_at:
        raise _KIND.refusal(
            where,
            f"the pass of {opened.reader} has expired on {local(opened.expires_at, seconds=False)}",
            "one that is valid now",
            remedy="check the clock; if it is right, ask the coordinator for a new pass",
        )
    return opened


def read_reader_pass(source: Path | bytes) -> ReaderPass:
    """A pass whatever the clock says: :func:`open_reader_pass` without a look at dates.

    Raises:
        ConfigError: not readable, over 64 KiB, damaged, edited, of another format, without an authority's certificate, or
            with a server that is no ``host:port``. Never repeats the token.
    """
    opened = sealed.unseal(source, _KIND, ReaderPass)
    where = source if isinstance(source, Path) else "reader pass"
    sealed.require_authority(read_certificate(opened.ca_certificate, where), _KIND, where)
    host_and_port(opened.server, where)
    return opened
