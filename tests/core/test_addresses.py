"""The address of a server, as a person writes it."""

from __future__ import annotations

import pytest

from brainunet.addresses import host_and_port
from brainunet.errors import ConfigError


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("fl.example.org:8443", ("fl.example.org", 8443)),
        ("localhost:1", ("localhost", 1)),
        ("flower_server-1:65535", ("flower_server-1", 65535)),
        ("10.0.0.7:443", ("10.0.0.7", 443)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
    ],
)
def test_a_server_is_a_host_and_a_port(server: str, expected: tuple[str, int]) -> None:
    assert host_and_port(server) == expected


@pytest.mark.parametrize(
    "server",
    [
        "", ":", "host", "host:", ":443", "host:0", "host:65536", "host:08443", "host:+1", "host:४४३", "host:443 ", " host:443",
        "https://host:443", "a b:443", "host:443/path", "-host:443", "host-:443", "host..org:443", "::1:443", "[::1:443",
        "[]:443", "[host]:443", "ü.org:443", "a" * 64 + ":443", "a." * 127 + "org:443", "host\n:443", "host:443\n",
    ],
)  # fmt: skip
def test_what_is_no_host_and_port_is_refused(server: str) -> None:
    with pytest.raises(ConfigError, match="host:port, such as"):
        host_and_port(server)
