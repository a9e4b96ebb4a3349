"""A coordinator in a test's own memory: an authority and a signing key, which turn a site's request into a kit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from brainunet.certificates import new_site_key, read_request
from brainunet.kit import Kit, seal
from brainunet.signing import new_signing_key

SERVER = "fl.example.org:8443"
DAY = timedelta(days=1)


class Coordinator:
    """Of the federation ``name``; two of one name are two federations."""

    def __init__(self, name: str = "glioma") -> None:
        self.name = name
        self._key, self.signing_key = new_site_key(), new_signing_key()
        self._ca = _certificate(name, self._key.public_key(), name, self._key, 3650 * DAY, ca=True)

    def kit(self, request: bytes, *, valid: timedelta = 365 * DAY, server: str = SERVER, name: str | None = None) -> bytes:
        """The kit that answers a request; ``valid`` below 0 ended so long ago."""
        asked = read_request(request)
        site = name or asked.name
        certificate = _certificate(site, asked.public_key, self.name, self._key, valid)
        kit = Kit(
            federation=self.name,
            site=site,
            server=server,
            ca_certificate=self._ca.public_bytes(Encoding.PEM).decode(),
            site_certificate=certificate.public_bytes(Encoding.PEM).decode(),
            signing_key=self.signing_key.public.text,
            issued_at=datetime.now(UTC).replace(microsecond=0),
        )
        return seal(kit, self.signing_key)


@cache
def coordinator(name: str = "glioma") -> Coordinator:
    return Coordinator(name)


def _certificate(
    name: str,
    key: EllipticCurvePublicKey,
    issuer: str,
    issuer_key: EllipticCurvePrivateKey,
    valid: timedelta,
    *,
    ca: bool = False,
) -> x509.Certificate:
    now = datetime.now(UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 400 * DAY)
        .not_valid_after(now + valid)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(issuer_key, SHA384())
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
