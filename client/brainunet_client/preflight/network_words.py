"""What a failed step on the way to the server means, and what to do: (said, remedy) for each."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import datetime

from cryptography import x509

from brainunet.certificates import common_name, read_certificate
from brainunet.complaints import one_line
from brainunet.kit import Kit
from brainunet.moments import day, local
from brainunet_client.preflight.contact import Contact, shown_certificate

_HOSTNAME_MISMATCH = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL


def reason(error: BaseException | None) -> str:
    """The innermost cause in a few words: httpx wraps what the operating system said in two layers.

    >>> reason(ConnectionRefusedError(111, "Connection refused")), reason(TimeoutError())
    ('connection refused', 'no answer in time')
    """
    first = list(_causes(error))[-1] if error else None
    if first is None or isinstance(first, TimeoutError):  # socket.timeout is one
        return "no answer in time"
    if isinstance(first, ssl.SSLError) and first.reason:
        return one_line(first.reason.replace("_", " ").lower(), 200)
    text = (first.strerror if isinstance(first, OSError) else None) or str(first) or type(first).__name__
    return one_line(text[0].lower() + text[1:], 200)


def proxy_trouble(contact: Contact) -> tuple[str, str]:
    said = f"the proxy of the environment can't be used ({reason(contact.error)})"
    return said, "correct HTTPS_PROXY (http://HOST:PORT), or unset it where no proxy is needed"


def name_trouble(contact: Contact) -> tuple[str, str]:
    if contact.proxy:
        said = f"the address of the proxy {contact.proxy} can't be found ({reason(contact.error)})"
        return said, "correct HTTPS_PROXY, or unset it where no proxy is needed"
    said = f"the address of the server {contact.host} can't be found ({reason(contact.error)})"
    return said, "check this machine's network and DNS, and the server's name with the coordinator"


def connection_trouble(contact: Contact) -> tuple[str, str]:
    where = f"{contact.host}:{contact.port}"
    if contact.proxy and contact.stage == "tunnel":
        said = f"the proxy {contact.proxy} does not let through to {where} ({reason(contact.error)})"
        return said, f"ask your IT to allow connections to {where}; after 407, put user and password into HTTPS_PROXY"
    if contact.proxy:
        said = f"the proxy {contact.proxy} does not answer ({reason(contact.error)})"
        return said, "correct HTTPS_PROXY, or unset it where no proxy is needed"
    said = f"the server {contact.host} does not answer on port {contact.port} ({reason(contact.error)})"
    return said, f"ask your IT whether the firewall lets out TCP to {where}, and the coordinator whether the server runs"


def encryption_trouble(contact: Contact, kit: Kit) -> tuple[str, str]:
    where = f"{contact.host}:{contact.port}"
    refused = next((e for e in _causes(contact.error) if isinstance(e, ssl.SSLCertVerificationError)), None)
    if refused is None:
        said = f"the server {contact.host} answers on port {contact.port} without speaking TLS ({reason(contact.error)})"
        return said, f"ask the coordinator whether the federation's server runs at {where}"
    shown = shown_certificate(kit.server)
    if shown is None:
        return f"the certificate of {where} is not good ({one_line(refused.verify_message, 200)})", "ask the coordinator"
    if refused.verify_code in _HOSTNAME_MISMATCH:
        said = f"the certificate of the server is for {_names(shown)}, not for {contact.host}"
        return said, f"ask the coordinator for a server certificate with {contact.host} in it, or for a kit with the right name"
    return _other_authority(shown, kit, where, refused.verify_message)


def dates_trouble(certificate: x509.Certificate, whose: str, now: datetime) -> tuple[str, str]:
    """Of a certificate that is not valid ``now``."""
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    when = f"expired on {_day(last, now)}" if now > last else f"is not valid before {_day(first, now)}"
    said = f"the certificate of {whose} {when}, and this machine's clock says {_day(now, last if now > last else first)}"
    return said, "correct this machine's clock if that is wrong, else ask the coordinator to renew the certificate"


def _other_authority(shown: x509.Certificate, kit: Kit, where: str, message: str) -> tuple[str, str]:
    ours = read_certificate(kit.ca_certificate, "kit").subject
    if shown.issuer == ours:
        said = f"the certificate of {where} is not good for the authority in the kit ({one_line(message, 200)})"
        return said, "the federation may have been set up anew: ask the coordinator for a new kit"
    issuer = one_line(common_name(shown.issuer) or shown.issuer.rfc4514_string(), 80)
    said = f"the certificate of {where} was issued by {issuer!r}, not by the federation's authority"
    return said, (
        f"where that is a firewall or proxy of your hospital, ask your IT to pass {where} on without opening it; "
        "else ask the coordinator whether the address in the kit is right"
    )


def _day(moment: datetime, other: datetime) -> str:
    """A moment as precisely as it takes to tell it from another: a sentence that stays the same is said only once."""
    return day(moment) if day(moment) != day(other) else local(moment, seconds=False)


def _names(certificate: x509.Certificate) -> str:
    """Which hosts a certificate is for, as far as it can be read."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        told = [one_line(str(name.value), 100) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        told = []
    return (", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")) or "no host at all"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
