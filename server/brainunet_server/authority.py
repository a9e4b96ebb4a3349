"""The federation's own certificate authority: it vouches for the server to the sites, and for the sites to the server.

Certificates follow RFC 5280, as strictly as Python's ``VERIFY_X509_STRICT`` asks for.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from brainunet.certificates import SiteRequest, common_name, read_certificate
from brainunet.errors import BrainUNetError, ConfigError
from brainunet.files import writing_aside
from brainunet.moments import day

CA_YEARS: Final = 10
CERTIFICATE_YEARS: Final = 2
ALWAYS: Final = ("localhost", "127.0.0.1")  # for checks on the server itself

_BACKDATED: Final = timedelta(hours=1)  # a hospital's clock may be behind


@dataclass(frozen=True)
class Authority:
    """The key that signs certificates, and the certificate that checks them."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh private key on P-384, for the authority or the server."""
    return ec.generate_private_key(ec.SECP384R1())


def make_authority(federation: str, *, now: datetime | None = None) -> Authority:
    """A new authority of this name; its certificate may sign those of servers and sites, not another authority's."""
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{federation} CA")])
    usage = _usage(signs_certificates=True)
    extensions: list[tuple[x509.ExtensionType, bool]] = [(x509.BasicConstraints(ca=True, path_length=0), True), (usage, True)]
    start = _start(now)
    builder = _builder(name, name, key.public_key(), start, _years_later(start, CA_YEARS), extensions)
    return Authority(key, builder.sign(key, hashes.SHA384()))


def certify_server(
    authority: Authority, key: ec.EllipticCurvePublicKey, federation: str, hosts: Sequence[str], *, now: datetime | None = None
) -> x509.Certificate:
    """The server's certificate for ``hosts`` (DNS names or IP addresses, see ``federation.parse_host``) and this machine."""
    names = x509.SubjectAlternativeName(_general_names([*hosts, *ALWAYS]))
    return _certify(authority, key, f"{federation} server", ExtendedKeyUsageOID.SERVER_AUTH, now, names)


def certify_site(authority: Authority, request: SiteRequest, *, now: datetime | None = None) -> x509.Certificate:
    """A site's certificate: its name and key from the request, everything else from here."""
    return _certify(authority, request.public_key, request.name, ExtendedKeyUsageOID.CLIENT_AUTH, now)


def renew_site(authority: Authority, certificate: x509.Certificate, *, now: datetime | None = None) -> x509.Certificate:
    """A later certificate for the same site and the same key."""
    name, key = common_name(certificate.subject), certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"certificate of {name}", found="a key that is no EC key", expected="one that was issued here")
    return _certify(authority, key, name, ExtendedKeyUsageOID.CLIENT_AUTH, now)


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and IP addresses that a server's certificate holds, in its order; none without any."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress)))


def pem_of(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key as PKCS8 PEM, 0600 from its first byte; an earlier file of this name is replaced.

    Raises:
        BrainUNetError: the folder can't be written.
    """
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with writing_aside(path) as aside, os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def read_authority(key_file: Path, certificate_file: Path) -> Authority:
    """The authority in two files.

    Raises:
        ConfigError: a file is missing or damaged, or the two do not belong together.
        BrainUNetError: a file may not be read.
    """
    certificate = read_certificate_file(certificate_file)
    key = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(_read(key_file), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(key_file, found="no EC private key", expected="the authority's", remedy=_RESTORE)
    if key.public_key() != certificate.public_key():
        raise ConfigError(key_file, found=f"another key than that of {certificate_file.name}", remedy=_RESTORE)
    return Authority(key, certificate)


def read_certificate_file(path: Path) -> x509.Certificate:
    """One of the folder's own certificates.

    Raises:
        ConfigError: missing or damaged.
        BrainUNetError: it may not be read.
    """
    content = _read(path)
    try:
        return read_certificate(content, path)
    except ConfigError:
        raise ConfigError(path, found="not a certificate", expected="the one made by init", remedy=_RESTORE) from None


_RESTORE: Final = "restore the folder keys from your backup"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(path, found="it is missing", expected="the file made by init", remedy=_RESTORE) from None
    except OSError as error:
        remedy = "run this as the user who owns the folder"
        raise BrainUNetError(path, found=f"it can't be read: {error.strerror or error}", remedy=remedy) from None


def _certify(
    authority: Authority,
    key: ec.EllipticCurvePublicKey,
    name: str,
    purpose: x509.ObjectIdentifier,
    now: datetime | None,
    *more: x509.ExtensionType,
) -> x509.Certificate:
    issuer = authority.certificate
    start = _start(now)
    end = min(_years_later(start, CERTIFICATE_YEARS), issuer.not_valid_after_utc)
    if end <= start + _BACKDATED:
        raise ConfigError(
            "ca.crt",
            found=f"the authority's certificate ended on {day(issuer.not_valid_after_utc)}",
            expected="one that is valid",
            remedy="make a new federation with flower-server init in another folder, and enrol its sites again",
        )
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([purpose]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
        *((extension, False) for extension in more),
    ]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return _builder(subject, issuer.subject, key, start, end, extensions).sign(authority.key, hashes.SHA384())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    for extension, critical in [(x509.SubjectKeyIdentifier.from_public_key(key), False), *extensions]:
        builder = builder.add_extension(extension, critical)
    return builder


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):  # each once
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _start(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).replace(microsecond=0) - _BACKDATED


def _years_later(start: datetime, years: int) -> datetime:
    return start + timedelta(days=365 * years + years // 4)
