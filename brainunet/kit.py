"""The kit: what a coordinator sends back to a site that asked to join. Identity only: no secret, and no setting.

It says who the federation is (its authority and the key it signs models with) and who the site is to it. A kit vouches for
itself, so somebody on the way could replace it as a whole: the people on both ends compare its fingerprint by telephone.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AwareDatetime, Field, ValidationError

from brainunet.certificates import common_name, fingerprint, out_of_time, public_key_id, read_certificate, require_issued_by
from brainunet.complaints import in_words
from brainunet.errors import ConfigError
from brainunet.exchanged_files import another
from brainunet.records import Name, Record
from brainunet.signing import PublicKey, SigningKey

MAX_KIT_BYTES: Final = 64 * 1024
PURPOSE: Final = "kit"

_FORMAT: Final = "brainunet-kit-1"
_HOST_PART: Final = re.compile("[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_AGAIN: Final = "ask the coordinator to send the kit again"


class Kit(Record):
    """Who the federation is, and who a site is to it.

    Attributes:
        federation: its name, for people.
        site: the site's name, which is also that of its certificate.
        server: where the coordinator listens, ``host:port`` (IPv6 in brackets).
        ca_certificate: PEM of the authority that issues the certificates of sites and server.
        site_certificate: PEM of the certificate of the site's own key.
        signing_key: the coordinator's public signing key in base64.
        issued_at: when the kit was made.
    """

    format: Literal["brainunet-kit-1"] = _FORMAT
    federation: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\P{C}+$")]  # no control characters
    site: Name
    server: Annotated[str, Field(max_length=260)]
    ca_certificate: str
    site_certificate: str
    signing_key: str
    issued_at: Annotated[AwareDatetime, Field(strict=True)]  # else a number would do for a time

    @property
    def fingerprint(self) -> str:
        """The federation's identity in six groups of five digits: its authority and its signing key, the same for every site.

        Raises:
            ConfigError: either is not readable; never of a kit that :func:`open_kit` gave.
        """
        ca = read_certificate(self.ca_certificate, "kit")
        return fingerprint(ca.public_bytes(Encoding.DER) + PublicKey.from_text(self.signing_key).raw)


def seal(kit: Kit, signing_key: SigningKey) -> bytes:
    """The content of a kit's file: its fields, a checksum and a signature, as JSON.

    Raises:
        ValueError: the kit names another signing key.
    """
    if kit.signing_key != signing_key.public.text:
        raise ValueError("a kit is signed with the key that it names")
    told = kit.model_dump(mode="json")
    content = _canonical(told)
    seals = {"checksum": hashlib.sha256(content).hexdigest(), "signature": signing_key.sign(PURPOSE, content)}
    return json.dumps(told | seals, indent=2).encode() + b"\n"


def open_kit(source: Path | bytes, *, now: datetime | None = None) -> Kit:
    """The kit in a file (or its content), after every check that can be made without asking anybody.

    Raises:
        ConfigError: as :func:`read_kit`, or with certificates that are not valid ``now``.
    """
    kit, moment = read_kit(source), now or datetime.now(UTC)
    where = source if isinstance(source, Path) else "kit"
    _require_valid(kit.ca_certificate, "the federation's authority", where, moment)
    _require_valid(kit.site_certificate, f"the certificate of {kit.site}", where, moment)
    return kit


def read_kit(source: Path | bytes) -> Kit:
    """A kit whatever the clock says, which may be what is wrong: :func:`open_kit` without a look at dates.

    Raises:
        ConfigError: not readable, over 64 KiB, damaged, edited, of another format, with certificates that don't fit
            together, or with a server that is no ``host:port``.
    """
    where = source if isinstance(source, Path) else "kit"
    told = _told(_content(source), where)
    checksum, signature = told.pop("checksum", None), told.pop("signature", None)
    try:
        content = _canonical(told)
    except (ValueError, RecursionError):
        raise _no_kit(where) from None
    if checksum != hashlib.sha256(content).hexdigest():
        raise ConfigError(
            where,
            found="the kit was damaged on the way",
            expected="the checksum that it was sent with",
            remedy="ask for it again",
        )
    try:
        genuine = PublicKey.from_text(told["signing_key"]).verify(PURPOSE, content, signature)
    except (ConfigError, LookupError):
        genuine = False
    if not genuine:
        raise ConfigError(
            where,
            found="the kit was edited",
            expected="a kit as its coordinator signed it",
            remedy=f"change nothing in it and {_AGAIN}",
        )
    try:
        kit = Kit.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise _no_kit(where, f"a kit whose {'.'.join(map(str, first['loc']))} is not valid ({in_words(first)})") from None
    _require_consistent(kit, where)
    return kit


def require_kit_of(kit: Kit, private_key: EllipticCurvePrivateKey) -> None:
    """Return only if the certificate in the kit is for this key.

    Raises:
        ConfigError: the kit of another site, or of this site's earlier key.
    """
    certified = read_certificate(kit.site_certificate, "kit").public_key()
    if public_key_id(certified) != public_key_id(private_key.public_key()):
        raise ConfigError(
            "kit",
            found=f"a kit for {kit.site} that was made for another key",
            expected="the kit that answers the request of this machine",
            remedy="use the kit of this site and its present key; if there is none, send the request again",
        )


def host_and_port(server: str, where: str | Path = "server") -> tuple[str, int]:
    """Host and port of ``host:port``, the brackets of an IPv6 address taken off.

    >>> host_and_port("fl.example.org:8443"), host_and_port("[::1]:8443")
    (('fl.example.org', 8443), ('::1', 8443))

    Raises:
        ConfigError: no such pair.
    """
    host, _, port = server.rpartition(":")
    if re.fullmatch("[1-9][0-9]{0,4}", port) and int(port) < 65536 and _is_host(host):
        return host.strip("[]"), int(port)
    raise ConfigError(
        where,
        found=f"a server {server[:80]!r}",
        expected="host:port, such as fl.example.org:8443",
        remedy="ask the coordinator for a kit with the right address",
    )


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    return len(host) <= 253 and all(_HOST_PART.fullmatch(part) for part in host.split("."))


def _require_consistent(kit: Kit, where: str | Path) -> None:
    ca = read_certificate(kit.ca_certificate, where)
    site = read_certificate(kit.site_certificate, where)
    if not _is_authority(ca):
        raise ConfigError(
            where,
            found="a certificate of the federation that is not one of an authority",
            expected="an authority's certificate",
            remedy=_AGAIN,
        )
    require_issued_by(site, ca)
    if common_name(site.subject) != kit.site:
        raise ConfigError(
            where,
            found=f"a certificate for {common_name(site.subject)[:64]!r}",
            expected=f"one for {kit.site!r}, whose kit it is",
            remedy=_AGAIN,
        )
    host_and_port(kit.server, where)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _require_valid(pem: str, whose: str, where: str | Path, now: datetime) -> None:
    if trouble := out_of_time(read_certificate(pem, where), now):
        raise ConfigError(
            where,
            found=f"{whose} {trouble}",
            expected="a certificate that is valid now",
            remedy="check the clock; if it is right, ask the coordinator for a new kit",
        )


def _content(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        with source.open("rb") as file:
            return file.read(MAX_KIT_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            source,
            found=error.strerror or "not readable",
            expected="the kit that the coordinator sent",
            remedy="check that it is there and that you may read it",
        ) from None


def _told(content: bytes, where: str | Path) -> dict[str, Any]:
    if len(content) > MAX_KIT_BYTES:
        raise _no_kit(where, f"more than {MAX_KIT_BYTES} bytes")
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        known = another(content, "kit")
        raise (_no_kit(where) if known is None else _no_kit(where, *known)) from None
    if not isinstance(told, dict) or "format" not in told:
        raise _no_kit(where)
    if told["format"] != _FORMAT:
        raise ConfigError(
            where,
            found=f"a kit of format {str(told['format'])[:40]!r}",
            expected=_FORMAT,
            remedy="update brainunet-fl, or ask for a kit made for this version",
        )
    return told


def _no_kit(where: str | Path, found: str = "something else than a kit, or a part of one", remedy: str = _AGAIN) -> ConfigError:
    return ConfigError(where, found=found, expected="the kit that the coordinator sent", remedy=remedy)


def _canonical(told: dict[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
