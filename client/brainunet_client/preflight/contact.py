"""One GET of the server's /health, and how far it came: the raw facts from which ``network_checks`` makes words.

It goes the way that Flower's own client goes (httpx, with the proxies of the environment), and httpx's trace tells each step.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import httpx
from cryptography import x509

from brainunet.addresses import host_and_port

STEP_S: Final = 5.0  # patience with one step; Flower's own client waits 30
MAX_ANSWER_BYTES: Final = 64 * 1024
_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python's module has no name for
_MOST_ADDRESSES: Final = 4  # of one name, each with a patience of its own

Clock: TypeAlias = Callable[[], datetime]
Stage: TypeAlias = Literal["proxy", "name", "connection", "tunnel", "encryption", "answer", "done"]
STAGES: Final[tuple[Stage, ...]] = ("proxy", "name", "connection", "tunnel", "encryption", "answer", "done")


def machine_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Answer:
    """What came back: ``date`` is the header as it was sent; between ``sent`` and ``received`` the server wrote it."""

    status: int
    body: bytes
    date: str | None
    sent: datetime
    received: datetime


@dataclass(frozen=True)
class Contact:
    """How far a GET came.

    Attributes:
        host, port: the server.
        stage: the step that failed, or "done".
        error: why it failed; None if it did not.
        proxy: host:port of the proxy on the way (never its password); None if there is none.
        addresses: of the first machine on the way.
        tls: version of the encryption.
        certificate: what the server showed, once it was found good.
    """

    host: str
    port: int
    stage: Stage = "proxy"
    error: Exception | None = None
    proxy: str | None = None
    addresses: tuple[str, ...] = ()
    tls: str = ""
    certificate: x509.Certificate | None = None
    answer: Answer | None = None

    def passed(self, stage: Stage) -> bool:
        return STAGES.index(self.stage) > STAGES.index(stage)


def contact(server: str, ca_certificate: str, clock: Clock = machine_clock, *, step_s: float = STEP_S) -> Contact:
    """Ask the server at ``host:port`` for /health, trusting the CA (PEM) alone. Never raises, never hangs.

    The dates of certificates are not looked at, which Flower's client does: a machine whose clock is years off takes every
    one for expired, and only the server's answer tells that it is the clock. Nothing but the question for /health is sent.
    """
    try:
        trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # as in Flower's client: the machine's own CAs don't count
        trusted.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
        trusted.load_verify_locations(cadata=ca_certificate)
    except (ssl.SSLError, ValueError) as error:
        return Contact(*host_and_port(server), stage="encryption", error=error)
    return _Way(server, trusted, clock, step_s, whole=True).go()


def shown_certificate(server: str, *, step_s: float = STEP_S) -> x509.Certificate | None:
    """Whatever certificate the server shows, good or bad, to say what is wrong with it; nothing is sent. None without any."""
    anything = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anything.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    return _Way(server, anything, machine_clock, step_s, whole=False).go().certificate


class _Enough(Exception):
    """The certificate has been seen: there is nothing to ask."""


class _Way:
    """One GET in a thread of its own, because a name that is looked up and a server that drips bytes know no time limit."""

    def __init__(self, server: str, trusted: ssl.SSLContext, clock: Clock, step_s: float, *, whole: bool) -> None:
        self._trusted, self._clock, self._step_s, self._whole = trusted, clock, step_s, whole
        self._url = httpx.URL(f"https://{server}/health")
        self._steps: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False after the last
        self._state = Contact(*host_and_port(server))
        self._stream: Any = None
        self._sent = self._received = clock()

    def go(self) -> Contact:
        threading.Thread(target=self._run, name="preflight", daemon=True).start()
        while True:
            tries = min(_MOST_ADDRESSES, len(self._state.addresses)) if self._state.stage == "connection" else 1
            try:
                if not self._steps.get(timeout=self._step_s * (max(1, tries) + 0.2)):  # httpx's own patience ends first
                    return self._state
            except queue.Empty:
                state = self._state
                self._hang_up()
                return replace(state, error=TimeoutError(f"no answer within {self._step_s:g} s"))

    def _run(self) -> None:
        try:
            with httpx.Client(verify=self._trusted, timeout=self._step_s) as client:
                self._move("name")
                self._get(client)
                self._move("done")
        except _Enough:
            self._move("done")
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes a line of the report
            self._state = replace(self._state, error=error)
        finally:
            self._steps.put(False)

    def _get(self, client: httpx.Client) -> None:
        headers = {"Accept-Encoding": "identity", "Accept": "application/json"}
        with client.stream("GET", self._url, headers=headers, extensions={"trace": self._trace}) as response:
            body = bytearray()
            for piece in response.iter_raw():  # never unpacked: a small answer may unpack to a huge one
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    break
            said = bytes(body[:MAX_ANSWER_BYTES])
            answer = Answer(response.status_code, said, response.headers.get("date"), self._sent, self._received)
        self._state = replace(self._state, answer=answer)

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        where, _, step = event.partition(".")
        to_server = where in ("proxy", "socks") or not self._state.proxy
        match step:
            case "connect_tcp.started":
                self._look_up(str(info["host"]), int(info["port"]))
            case "connect_tcp.complete":
                self._stream = info["return_value"]
                self._move("tunnel")
            case "start_tls.started" if to_server:
                self._move("encryption")
            case "start_tls.complete":
                self._stream = info["return_value"]
                if to_server:
                    self._see_certificate()
            case "send_request_headers.started":
                self._sent = self._clock()
            case "receive_response_headers.complete":
                self._received = self._clock()

    def _look_up(self, host: str, port: int) -> None:
        if (host, port) != (self._url.raw_host.decode(), self._url.port or 443):
            self._state = replace(self._state, proxy=f"{host}:{port}")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self._move("connection", addresses=tuple(dict.fromkeys(str(address[0]) for *_, address in found)))

    def _see_certificate(self) -> None:
        try:
            tls = self._stream.get_extra_info("ssl_object")
            certificate = x509.load_der_x509_certificate(tls.getpeercert(True))
            self._move("answer", certificate=certificate, tls=tls.version() or "")
            if not self._whole:
                raise _Enough
        except Exception:  # httpx does not close a connection that a trace interrupts
            self._stream.close()
            raise

    def _move(self, stage: Stage, **facts: Any) -> None:
        self._state = replace(self._state, stage=stage, **facts)
        self._steps.put(True)

    def _hang_up(self) -> None:
        with suppress(OSError, AttributeError, TypeError):  # it may be gone already, or not be there yet
            socket.socket.shutdown(self._stream.get_extra_info("socket"), socket.SHUT_RDWR)  # wakes the thread that reads
