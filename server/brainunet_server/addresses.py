"""How a federation is called and reached: its title, its host, and both spelt as kits and people write them."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_TITLE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,46}[A-Za-z0-9])?")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def parse_title(text: str) -> str:
    """The name of a federation, as it stands in certificates and kits.

    Raises:
        ValueError: not 1 to 48 letters, digits, spaces, dots, underscores and hyphens.
    """
    if not _TITLE.fullmatch(text):
        raise ValueError(
            "a federation's name is 1 to 48 letters, digits, spaces and . _ - and begins and ends with one of a-z 0-9"
        )
    return text


def parse_host(text: str) -> str:
    """A DNS name in lower case, or an IP address in its shortest form.

    >>> parse_host("FL.Example.org"), parse_host("[2001:db8:0::1]")
    ('fl.example.org', '2001:db8::1')

    Raises:
        ValueError: neither, or an address that nobody can connect to.
    """
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        labels = text.lower().split(".")
        if len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit():
            return text.lower()
        raise ValueError(
            "write a DNS name such as fl.example.org (xn--... for other letters) or an IP address, without a port"
        ) from None
    if address.is_unspecified or address.is_multicast or "%" in text:
        raise ValueError("nobody can connect to this address: write the one by which hospitals reach the server")
    return str(address)


def server_address(host: str, port: int) -> str:
    """As kits and people write it.

    >>> server_address("2001:db8::1", 8443)
    '[2001:db8::1]:8443'
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
