"""Small files that a coordinator hands out: a JSON object with a checksum of it, and a signature by the key that it names.

Such a file vouches for itself, so somebody on the way could replace it as a whole: the people on both ends compare the
:func:`federation_fingerprint` by telephone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from brainunet.certificates import fingerprint, out_of_time, read_certificate
from brainunet.complaints import in_words
from brainunet.errors import ConfigError
from brainunet.exchanged_files import Exchanged, another
from brainunet.records import Record
from brainunet.signing import PublicKey, SigningKey

MAX_BYTES: Final = 64 * 1024

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Kind:
    """A kind of sealed file.

    Attributes:
        what: what it is called; another kind's file is told by it (see ``brainunet.exchanged_files``).
        purpose: that its signature is made for.
        format: what its field ``format`` says, with the version.
        again: what to do when it can't be used.
    """

    what: Exchanged
    purpose: str
    format: str
    again: str

    @property
    def expected(self) -> str:
        return f"the {self.what} that the coordinator sent"

    def refusal(self, where: str | Path, found: str = "", expected: str = "", *, remedy: str = "") -> ConfigError:
        """Why such a file is not used."""
        found = found or f"something else than a {self.what}, or a part of one"
        return ConfigError(where, found=found, expected=expected or self.expected, remedy=remedy or self.again)


def seal(record: Record, kind: Kind, key: SigningKey) -> bytes:
    """The content of the file: the record's fields, a checksum and a signature, as JSON.

    Raises:
        ValueError: the record names another signing key.
    """
    told = record.model_dump(mode="json")
    if told["signing_key"] != key.public.text:
        raise ValueError(f"a {kind.what} is signed with the key that it names")
    content = _canonical(told)
    seals = {"checksum": hashlib.sha256(content).hexdigest(), "signature": key.sign(kind.purpose, content)}
    return json.dumps(told | seals, indent=2).encode() + b"\n"


def unseal(source: Path | bytes, kind: Kind, record: type[R]) -> R:
    """The record in a file (or its content) of this kind: whole, as it was signed, and each field valid.

    Raises:
        ConfigError: not readable, over 64 KiB, another file, damaged, edited, or of another format.
    """
    where = source if isinstance(source, Path) else kind.what
    told = _told(_content(source, kind), kind, where)
    checksum, signature = told.pop("checksum", None), told.pop("signature", None)
    try:
        content = _canonical(told)
    except (ValueError, RecursionError):
        raise kind.refusal(where) from None
    if checksum != hashlib.sha256(content).hexdigest():
        raise kind.refusal(
            where,
            f"the {kind.what} was damaged on the way",
            "the checksum that it was sent with",
            remedy="ask for it again",
        )
    try:
        genuine = PublicKey.from_text(told["signing_key"]).verify(kind.purpose, content, signature)
    except (ConfigError, LookupError):
        genuine = False
    if not genuine:
        raise kind.refusal(
            where,
            f"the {kind.what} was edited",
            f"a {kind.what} as its coordinator signed it",
            remedy=f"change nothing in it and {kind.again}",
        )
    try:
        return record.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        found = f"a {kind.what} whose {'.'.join(map(str, first['loc']))} is not valid ({in_words(first)})"
        raise kind.refusal(where, found) from None


def federation_fingerprint(ca: x509.Certificate, signing_key: PublicKey) -> str:
    """The federation's identity in six groups of five digits: its authority and its signing key, the same in each file."""
    return fingerprint(ca.public_bytes(Encoding.DER) + signing_key.raw)


def require_authority(certificate: x509.Certificate, kind: Kind, where: str | Path) -> None:
    """Pass if the certificate is one of an authority.

    Raises:
        ConfigError: it is not.
    """
    try:
        may = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        may = False
    if not may:
        raise kind.refusal(
            where, "a certificate of the federation that is not one of an authority", "an authority's certificate"
        )


def require_valid(pem: str, whose: str, kind: Kind, where: str | Path, now: datetime) -> None:
    """Pass if the certificate is valid ``now``.

    Raises:
        ConfigError: it has expired, or is not valid yet.
    """
    if trouble := out_of_time(read_certificate(pem, where), now):
        raise kind.refusal(
            where,
            f"{whose} {trouble}",
            "a certificate that is valid now",
            remedy=f"check the clock; if it is right, ask the coordinator for a new {kind.what}",
        )


def _content(source: Path | bytes, kind: Kind) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        with source.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise kind.refusal(
            source, error.strerror or "not readable", remedy="check that it is there and that you may read it"
        ) from None


def _told(content: bytes, kind: Kind, where: str | Path) -> dict[str, Any]:
    if len(content) > MAX_BYTES:
        raise kind.refusal(where, f"more than {MAX_BYTES} bytes")
    known = another(content, kind.what)
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or "format" not in told or (told["format"] != kind.format and known):
        what, remedy = known or ("", "")
        raise kind.refusal(where, what, remedy=remedy)
    if told["format"] != kind.format:
        raise kind.refusal(
            where,
            f"a {kind.what} of format {str(told['format'])[:40]!r}",
            kind.format,
            remedy=f"update brainunet-fl, or ask for a {kind.what} made for this version",
        )
    return told


def _canonical(told: dict[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
