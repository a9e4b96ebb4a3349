"""A small authority that certifies whatever a test asks for."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from brainunet.certificates import SiteRequest

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    ca_key: EllipticCurvePrivateKey
    ca_certificate: x509.Certificate

    @property
    def ca_pem(self) -> str:
        return pem_of(self.ca_certificate)

    def issue(
        self,
        subject: SiteRequest | CertificatePublicKeyTypes,
        name: str = "",
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        hosts: Sequence[str] = (),
        is_ca: bool = False,
    ) -> x509.Certificate:
        """A certificate for a request (under its own name, if no other is given) or a key; valid since yesterday, for a year.

        ``hosts`` are names and IP addresses for a server's certificate.
        """
        if isinstance(subject, SiteRequest):
            name, subject = name or subject.name, subject.public_key
        return _certificate(
            subject,
            name,
            self.ca_certificate.subject,
            self.ca_key,
            (not_before, not_after),
            hosts=hosts,
            is_ca=is_ca,
        )


def new_authority(
    name: str = "glioma authority",
    *,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    is_ca: bool | None = True,
) -> Authority:
    """An authority with a new key; ``is_ca`` False or None (says nothing of it) gives one that may not certify anybody."""
    key = generate_private_key(SECP384R1())
    return Authority(key, _certificate(key.public_key(), name, _named(name), key, (not_before, not_after), is_ca=is_ca))


def pem_of(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


def _certificate(
    public_key: CertificatePublicKeyTypes,
    name: str,
    issuer: x509.Name,
    issuer_key: EllipticCurvePrivateKey,
    valid: tuple[datetime | None, datetime | None],
    *,
    hosts: Sequence[str] = (),
    is_ca: bool | None = False,
) -> x509.Certificate:
    first, last = valid
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(first or now - DAY)
        .not_valid_after(last or now + 365 * DAY)
    )
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    return builder.sign(issuer_key, SHA384())


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
