"""Where a server listens, as kits, passes and people write it: ``host:port``."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final

from brainunet.errors import ConfigError

_HOST_PART: Final = re.compile("[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


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
        remedy="ask the coordinator for the right address",
    )


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    return len(host) <= 253 and all(_HOST_PART.fullmatch(part) for part in host.split("."))
