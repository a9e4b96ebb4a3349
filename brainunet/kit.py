"""The kit: what a coordinator sends back to a site that asked to join. Identity only: no secret, and no setting.

It says who the federation is (its authority and the key it signs models with) and who the site is to it. How it is sealed,
and why people compare its fingerprint: ``brainunet.sealed``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from pydantic import AwareDatetime, Field

from brainunet import sealed
from brainunet.addresses import host_and_port
from brainunet.certificates import common_name, public_key_id, read_certificate, require_issued_by
from brainunet.errors import ConfigError
from brainunet.records import Name, Record
from brainunet.signing import PublicKey, SigningKey

PURPOSE: Final = "kit"

_KIND: Final = sealed.Kind("kit", PURPOSE, "brainunet-kit-1", "ask the coordinator to send the kit again")


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
        registry: where the site fetches published models, ``host:port``; empty in kits that are older than that.
    """

    format: Literal["brainunet-kit-1"] = "brainunet-kit-1"
    federation: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\P{C}+$")]  # no control characters
    site: Name
    server: Annotated[str, Field(max_length=260)]
    ca_certificate: str
    site_certificate: str
    signing_key: str
    issued_at: Annotated[AwareDatetime, Field(strict=True)]  # else a number would do for a time
    registry: Annotated[str, Field(max_length=260)] = ""

    @property
    def fingerprint(self) -> str:
        """See :func:`brainunet.sealed.federation_fingerprint`.

        Raises:
            ConfigError: authority or key are not readable; never of a kit that :func:`open_kit` gave.
        """
        return sealed.federation_fingerprint(
            read_certificate(self.ca_certificate, "kit"), PublicKey.from_text(self.signing_key)
        )


def seal(kit: Kit, signing_key: SigningKey) -> bytes:
    """The content of a kit's file: its fields, a checksum and a signature, as JSON.

    Raises:
        ValueError: the kit names another signing key.
    """
    return sealed.seal(kit, _KIND, signing_key)


def open_kit(source: Path | bytes, *, now: datetime | None = None) -> Kit:
    """The kit in a file (or its content), after every check that can be made without asking anybody.

    Raises:
        ConfigError: as :func:`read_kit`, or with certificates that are not valid ``now``.
    """
    kit, moment = read_kit(source), now or datetime.now(UTC)
    where = source if isinstance(source, Path) else "kit"
    sealed.require_valid(kit.ca_certificate, "the federation's authority", _KIND, where, moment)
    sealed.require_valid(kit.site_certificate, f"the certificate of {kit.site}", _KIND, where, moment)
    return kit


def read_kit(source: Path | bytes) -> Kit:
    """A kit whatever the clock says, which may be what is wrong: :func:`open_kit` without a look at dates.

    Raises:
        ConfigError: not readable, over 64 KiB, damaged, edited, of another format, with certificates that don't fit
            together, or with a server or registry that is no ``host:port``.
    """
    kit = sealed.unseal(source, _KIND, Kit)
    _require_consistent(kit, source if isinstance(source, Path) else "kit")
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


def _require_consistent(kit: Kit, where: str | Path) -> None:
    ca = read_certificate(kit.ca_certificate, where)
    site = read_certificate(kit.site_certificate, where)
    sealed.require_authority(ca, _KIND, where)
    require_issued_by(site, ca)
    if common_name(site.subject) != kit.site:
        raise _KIND.refusal(
            where, f"a certificate for {common_name(site.subject)[:64]!r}", f"one for {kit.site!r}, whose kit it is"
        )
    host_and_port(kit.server, where)
    if kit.registry:
        host_and_port(kit.registry, where)
