"""A site's key, its request and its certificate (X.509, EC P-384).

A site makes its key and keeps it; only a request, signed with the key, goes to the coordinator, whose authority answers with
a certificate. People compare a :func:`fingerprint` by telephone at both steps.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)
from cryptography.x509.oid import NameOID

from brainunet.errors import ConfigError
from brainunet.exchanged_files import another
from brainunet.files import write_new_private
from brainunet.moments import local

MAX_BYTES: Final = 16 * 1024  # of a key, a request or a certificate
MAX_NAME_LENGTH: Final = 40

_REQUEST: Final = "a request made by brainunet-client"
_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_LENGTH - 1}}}")
# What hostile bytes make of a reader; the last three are no ValueError, against what one would think.
_GARBAGE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True)
class SiteRequest:
    """What a site asks to have certified: its name and its key, and nothing else that the request may hold.

    ``pem`` is the request in its one spelling, and ``fingerprint`` that of its DER: equal wherever the same request is read.
    """

    name: str
    public_key: EllipticCurvePublicKey
    pem: bytes
    fingerprint: str


def new_site_key() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP384R1())


def write_site_key(path: Path, key: EllipticCurvePrivateKey) -> None:
    """Write the key in OpenSSH's format, which Flower reads, for its owner alone (0600).

    Raises:
        ConfigError: there is a file already; a key is never overwritten.
        BrainUNetError: disk full, or a folder that can't be written.
    """
    content = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_new_private(path, content)


def read_site_key(path: Path) -> EllipticCurvePrivateKey:
    """The key of a file written by :func:`write_site_key`.

    Raises:
        ConfigError: missing, not readable, or no EC P-384 key in OpenSSH's format without a password.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES)
    except OSError as error:
        raise ConfigError(
            path,
            found=error.strerror or "not readable",
            expected="the key of this site",
            remedy="check that it is there and that you may read it",
        ) from None
    try:
        with warnings.catch_warnings(action="ignore"):  # of kinds of keys that are refused below
            key = load_ssh_private_key(content, password=None)
    except _GARBAGE:
        key = None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP384R1):
        raise ConfigError(
            path,
            found="something else than a site's key",
            expected="an EC P-384 key in OpenSSH's format, without a password",
            remedy="put the key back from your backup, or join again with a new one",
        )
    return key


def key_in_pem(key: EllipticCurvePrivateKey) -> bytes:
    """The private key as PKCS #8 in PEM, which TLS libraries read; for this process alone, never for a file."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_request(key: EllipticCurvePrivateKey, name: str) -> bytes:
    """A request (PKCS #10, PEM) to certify that ``name`` has this key.

    Raises:
        ConfigError: not a name for a site.
    """
    _require_name(name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA384())
    return request.public_bytes(Encoding.PEM)


def read_request(content: bytes, where: str | Path = "request") -> SiteRequest:
    """What a request asks for, after checking that whoever made it has the key. Its extensions are not looked at.

    Raises:
        ConfigError: over 16 KiB, no request, a key other than EC P-384, a signature that is not the key's, or no name for a
            site.
    """
    try:
        if len(content) > MAX_BYTES:
            raise _no_request(where, f"{len(content)} bytes")
        request = x509.load_pem_x509_csr(content)
        public_key = request.public_key()
        if not isinstance(public_key, EllipticCurvePublicKey) or not isinstance(public_key.curve, SECP384R1):
            raise _no_request(where, "a key of another kind", "an EC P-384 key")
        if not request.is_signature_valid:
            raise _no_request(where, "a signature that the key in it did not make")
        name = common_name(request.subject)
        pem, der = request.public_bytes(Encoding.PEM), request.public_bytes(Encoding.DER)
    except _GARBAGE:
        raise _no_request(where, *_something_else(content)) from None
    return SiteRequest(_require_name(name), public_key, pem, fingerprint(der))


def fingerprint(content: bytes) -> str:
    """Some bytes in 30 digits to read out over the telephone; nobody can make other bytes with the same ones.

    >>> fingerprint(b"")
    '19803 49933 79397 00111 56650 86549'
    """
    digits = f"{int.from_bytes(hashlib.sha256(content).digest()) % 10**30:030d}"
    return " ".join(digits[start : start + 5] for start in range(0, 30, 5))


def public_key_id(public_key: PublicKeyTypes) -> str:
    """SHA-256 of the key (SubjectPublicKeyInfo, DER) in 64 hexadecimal digits: equal for the same key alone."""
    return hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def read_certificate(pem: bytes | str, where: str | Path = "certificate") -> x509.Certificate:
    """The certificate of a PEM text, whose key, subject and extensions can be read. Says nothing of who issued it.

    Raises:
        ConfigError: over 16 KiB, or no certificate.
    """
    content = pem.encode("ascii", "replace") if isinstance(pem, str) else pem
    try:
        if len(content) > MAX_BYTES:
            raise ValueError
        certificate = x509.load_pem_x509_certificate(content)
        _ = (certificate.public_key(), certificate.subject, certificate.extensions)  # these are only parsed when asked for
    except _GARBAGE:
        raise ConfigError(
            where, found="no certificate", expected="an X.509 certificate in PEM", remedy="fetch the whole file again"
        ) from None
    return certificate


def common_name(subject: x509.Name) -> str:
    """The one common name of a subject; empty if it has none, several, or one that is no text."""
    names = [attribute.value for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return names[0] if len(names) == 1 and isinstance(names[0], str) else ""


def days_left(certificate: x509.Certificate, now: datetime | None = None) -> int:
    """Whole days until a certificate expires: 0 on its last day, negative afterwards."""
    return (certificate.not_valid_after_utc - (now or datetime.now(UTC))).days


def out_of_time(certificate: x509.Certificate, now: datetime) -> str | None:
    """Why a certificate is not valid at ``now``, with its dates and that of the clock; None if it is."""
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if first <= now <= last:
        return None
    return (
        f"{'is not valid yet' if now < first else 'has expired'}: it is valid from {local(first, seconds=False)}"
        f" to {local(last, seconds=False)}, and this computer's clock says {local(now, seconds=False)}"
    )


def require_issued_by(certificate: x509.Certificate, ca: x509.Certificate) -> None:
    """Return only if ``ca`` signed the certificate; dates are not looked at.

    Raises:
        ConfigError: another authority did, or only its name agrees.
    """
    try:
        certificate.verify_directly_issued_by(ca)
    except _GARBAGE:
        raise ConfigError(
            f"certificate of {common_name(certificate.subject)[:MAX_NAME_LENGTH] or 'nobody'}",
            found="it was not issued by this federation's authority",
            expected=f"a certificate signed by {common_name(ca.subject)[:80] or 'the authority'}",
            remedy="ask the coordinator for the certificate again",
        ) from None


def _require_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "name of the site",
            found=repr(name)[:60],
            expected=f"1 to {MAX_NAME_LENGTH} letters, digits, dots, dashes and underscores, of which the first is a letter"
            " or a digit",
            remedy="choose a name such as charite-berlin",
        )
    return name


def _something_else(content: bytes) -> tuple[str, ...]:
    known = another(content, "request")
    return ("something else",) if known is None else (known[0], _REQUEST, known[1])


def _no_request(
    where: str | Path, found: str, expected: str = _REQUEST, remedy: str = "ask the site to make its request again"
) -> ConfigError:
    return ConfigError(where, found=found, expected=expected, remedy=remedy)
