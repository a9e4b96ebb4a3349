"""What keeps this machine from a registry, found step by step without gRPC, whose own words are for its makers.

Looked at only after a call has failed: address, proxy, connection, encryption, certificate, and whether what answers speaks
HTTP/2 at all.
"""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined] # not in typeshed

from brainunet.addresses import host_and_port
from brainunet.complaints import one_line
from brainunet.moments import local

STEP_S: Final = 5.0

# Of OpenSSL, which Python's module has no names for: X509_V_ERR_...
_NOT_YET, _EXPIRED = 9, 10
_OTHER_HOST: Final = (62, 64)


@dataclass(frozen=True)
class Trouble:
    """What is wrong and what to do; ``lasting`` if waiting for it to pass is no use."""

    found: str
    remedy: str
    lasting: bool = False


def look(server: str, ca_certificate: str, *, step_s: float = STEP_S) -> Trouble | None:
    """The first thing on the way to ``host:port`` that is wrong; None if a good server answers there."""
    host, port = host_and_port(server)
    proxy = proxy_to(host)
    try:
        with _connected(host, port, proxy, step_s) as line, _secured(line, host, ca_certificate) as secure:
            if secure.selected_alpn_protocol() != "h2":
                return _no_registry(server)
    except _Found as found:
        return found.trouble
    except ssl.SSLCertVerificationError as error:
        return _certificate_trouble(server, error)
    except OSError as error:
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return _no_registry(server)
        return Trouble(f"it hangs up ({_said(error)})", "try again later; ask the coordinator whether the registry runs")
    return None


def proxy_to(host: str) -> SplitResult | None:
    """The proxy that gRPC takes to a host, by the environment; None if it takes none."""
    known = getproxies_environment()
    said = known.get("grpc") or known.get("https") or known.get("http")
    if not said or proxy_bypass_environment(host, known):
        return None
    try:
        proxy = urlsplit(said if "://" in said else f"http://{said}")
        return proxy if proxy.scheme == "http" and proxy.hostname and proxy.port is not None else None
    except ValueError:  # a port that is no number
        return None


class _Found(Exception):
    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.found)
        self.trouble = trouble


@contextmanager
def _connected(host: str, port: int, proxy: SplitResult | None, step_s: float) -> Iterator[socket.socket]:
    where = (host, port) if proxy is None else (str(proxy.hostname), int(proxy.port or 80))
    name = f"{host}:{port}" if proxy is None else f"the proxy {where[0]}:{where[1]}"
    who = "it" if proxy is None else name
    mend = "correct https_proxy, or unset it where no proxy is needed"
    try:
        line = socket.create_connection(where, step_s)
    except socket.gaierror as error:
        ask = "check this machine's network, and the server's name with the coordinator" if proxy is None else mend
        raise _Found(Trouble(f"the address of {name if proxy else host} can't be found ({_said(error)})", ask)) from None
    except OSError as error:
        ask = f"ask the coordinator whether the registry runs, and your IT whether the firewall lets out TCP to {name}"
        raise _Found(Trouble(f"{who} does not answer ({_said(error)})", ask if proxy is None else mend)) from None
    with line:
        if proxy is not None:
            _through(line, host, port, proxy, name)
        yield line


def _through(line: socket.socket, host: str, port: int, proxy: SplitResult, name: str) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    login = ""
    if proxy.username:
        pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        login = f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
    line.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 16 * 1024 and (piece := line.recv(1024)):
        head += piece
    status = head.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ", 2)
    if len(status) < 2 or not status[1].startswith("2"):
        answer = one_line(" ".join(status[1:]), 100) or "no answer"
        ask = f"ask your IT to allow connections to {target}; after 407, put user and password into https_proxy"
        raise _Found(Trouble(f"{name} does not let through to {target} ({answer})", ask, lasting=True))


@contextmanager
def _secured(line: socket.socket, host: str, ca_certificate: str) -> Iterator[ssl.SSLSocket]:
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted.load_verify_locations(cadata=ca_certificate)
    trusted.set_alpn_protocols(["h2"])
    with trusted.wrap_socket(line, server_hostname=host) as secure:
        yield secure


def _certificate_trouble(server: str, error: ssl.SSLCertVerificationError) -> Trouble:
    if error.verify_code in (_NOT_YET, _EXPIRED):
        when = "is not valid yet" if error.verify_code == _NOT_YET else "has expired"
        return Trouble(
            f"the certificate of the server {when}, and this computer's clock says {local(datetime.now(UTC), seconds=False)}",
            "correct the clock of this computer if it is wrong, else ask the coordinator to renew the certificate",
            lasting=True,
        )
    if error.verify_code in _OTHER_HOST:
        return Trouble(
            "the certificate of the server is for another name",
            f"ask the coordinator by which name the registry is reached, or for a server certificate with that of {server}",
            lasting=True,
        )
    return Trouble(
        "the certificate of the server was not issued by this federation's authority",
        "if a firewall or proxy of your hospital opens connections, ask your IT to pass this one on unopened; else ask the "
        "coordinator whether the address is right, or whether there is a new kit. Nothing was asked of that server",
        lasting=True,
    )


def _no_registry(server: str) -> Trouble:
    return Trouble(
        "something answers there that is no registry of models",
        f"check the port in {server} with the coordinator",
        lasting=True,
    )


def _said(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return "in the middle of a word"
    return one_line(error.strerror or type(error).__name__, 100).lower()
