"""A federation's server for the checks of a client: real TLS on a free port, and an answer to /health that a test chooses."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from brainunet import __version__
from brainunet.kit import Kit, seal
from brainunet.records import PROTOCOL
from brainunet.signing import SigningKey, new_signing_key
from tests.support.authority import DAY, Authority, new_authority, pem_of

GOOD = {"brainunet": __version__, "protocol": PROTOCOL, "federation": "glioma"}


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Federation:
    """The two things that a federation is known by."""

    authority: Authority = field(default_factory=lambda: new_authority("glioma authority"))
    signing_key: SigningKey = field(default_factory=new_signing_key)

    def kit(self, server: str, site_key: EllipticCurvePrivateKey, *, days: float = 365, **changes: Any) -> Kit:
        """The kit of the site "lagos", whose certificate is good for so many days more."""
        site = self.authority.issue(site_key.public_key(), "lagos", not_after=now() + days * DAY)
        fields: dict[str, Any] = {
            "federation": "glioma",
            "site": "lagos",
            "server": server,
            "ca_certificate": self.authority.ca_pem,
            "site_certificate": pem_of(site),
            "signing_key": self.signing_key.public.text,
            "issued_at": now(),
        }
        return Kit(**fields | changes)

    def sealed(self, kit: Kit) -> bytes:
        return seal(kit, self.signing_key)


@dataclass(frozen=True)
class Says:
    """What the server answers; ``date`` None is the real time."""

    body: bytes = json.dumps(GOOD).encode()
    status: int = 200
    date: str | None = None

    def but(self, **facts: Any) -> Says:
        return replace(self, body=json.dumps(json.loads(self.body) | facts).encode())


@contextmanager
def health_server(
    folder: Path,
    federation: Federation,
    says: Says = Says(),
    *,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    start: float = -1,
    end: float = 365,
) -> Iterator[int]:
    """A server with a certificate of the federation for ``hosts``; gives its port on 127.0.0.1.

    The certificate is valid from ``start`` to ``end`` days from now.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(says.status if self.path == "/health" else 404)
            self.send_header("Content-Length", str(len(says.body)))
            self.end_headers()
            self.wfile.write(says.body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return says.date if says.date is not None else super().date_time_string(timestamp)

        def log_message(self, *_: object) -> None:
            pass

    key = generate_private_key(SECP384R1())
    certificate = folder / f"server-{id(key)}.pem"
    first, last = now() + start * DAY, now() + end * DAY
    issued = federation.authority.issue(key.public_key(), "server", hosts=hosts, not_before=first, not_after=last)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    certificate.write_text(private + pem_of(issued))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(Handler, context) as port:
        yield port


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """An HTTP server on a free port of 127.0.0.1, in threads of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def talking(first_words: bytes) -> Iterator[int]:
    """A port that says some bytes to whoever connects, and hangs up."""

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)
            self.wfile.write(first_words)

    with serving(Handler) as port:
        yield port


@pytest.fixture(scope="module")
def federation() -> Federation:
    return Federation()


@pytest.fixture
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxy(monkeypatch)


def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the proxies of the machine that the tests run on."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
