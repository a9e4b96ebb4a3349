"""The way to the federation's server, step by step: each a line, and none after the first that fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from cryptography import x509
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from brainunet import __version__
from brainunet.certificates import days_left, out_of_time, read_certificate
from brainunet.complaints import one_line
from brainunet.kit import Kit
from brainunet.moments import day
from brainunet.records import PROTOCOL, Version
from brainunet_client.preflight.contact import Answer, Clock, Contact, contact
from brainunet_client.preflight.network_words import (
    connection_trouble,
    dates_trouble,
    encryption_trouble,
    name_trouble,
    proxy_trouble,
    reason,
)
from brainunet_client.preflight.report import NETWORK, Check, guarded

# The server refuses messages of more than 5 s in its future or 305 s in its past.
AHEAD_WARN_S: Final = 2.0
AHEAD_FAIL_S: Final = 4.0
BEHIND_WARN_S: Final = 60.0
BEHIND_FAIL_S: Final = 300.0
CERTIFICATE_WARN_DAYS: Final = 30

SET_THE_CLOCK: Final = "switch on NTP (on Linux: timedatectl set-ntp true), or ask your IT to set this machine's clock"


class Health(BaseModel):
    """What a server of a federation says at /health; more than this may stand there."""

    model_config = ConfigDict(frozen=True, strict=True)

    brainunet: Version
    protocol: int
    federation: str = Field(max_length=500)


@dataclass(frozen=True)
class Line:
    """What the network checks look at: the kit, how far one GET came, and what it brought."""

    kit: Kit
    contact: Contact
    clock: Clock

    @property
    def where(self) -> str:
        return f"{self.contact.host} on port {self.contact.port}"

    @property
    def answer(self) -> Answer:
        if self.contact.answer is None:
            raise LookupError("no answer")
        return self.contact.answer

    @property
    def date(self) -> datetime | None:
        """The time by the server's clock, half a second being guessed, for a Date header is whole seconds."""
        said = self.contact.answer.date if self.contact.answer else None
        try:
            date = parsedate_to_datetime(said or "")
        except (ValueError, OverflowError):
            return None
        return (date if date.tzinfo else date.replace(tzinfo=UTC)) + timedelta(seconds=0.5)

    def out_of_time(self, now: datetime) -> x509.Certificate | None:
        """A certificate on the way to the server, its authority's or its own, that is not valid at ``now``."""
        both = read_certificate(self.kit.ca_certificate, "kit"), self.contact.certificate
        return next((one for one in both if one is not None and out_of_time(one, now)), None)

    @property
    def clock_is_to_blame(self) -> bool:
        """Whether certificates seem to be out of their time only because this machine's clock is."""
        here, there = self.out_of_time(self.clock()), self.date
        return here is not None and there is not None and self.out_of_time(there) is None

    @property
    def health(self) -> Health:
        return Health.model_validate_json(self.answer.body)


def network_checks(kit: Kit, clock: Clock) -> list[Check]:
    """One exchange with the kit's server, told in lines."""
    line = Line(kit, contact(kit.server, kit.ca_certificate, clock), clock)
    checks: list[Check] = []
    blocked = ""
    for step in STEPS:
        if blocked:
            checks.append(_skipped(step.name, blocked))
            continue
        checks += guarded(step.name, step.look, line, NETWORK)
        if checks[-1].outcome == "FAIL" and step.blocks:
            blocked = step.name
    return checks


def proxy(line: Line) -> Check:
    if not line.contact.passed("proxy"):
        return _failed("proxy", *proxy_trouble(line.contact))
    way = f"by way of {line.contact.proxy}, as the environment says" if line.contact.proxy else "none"
    return _passed("proxy", way)


def name(line: Line) -> Check:
    if not line.contact.passed("name"):
        return _failed("server name", *name_trouble(line.contact))
    addresses = ", ".join(line.contact.addresses[:3])
    if line.contact.proxy:
        return _passed("server name", f"{line.contact.host}, left to the proxy, which is at {addresses}")
    return _passed("server name", f"{line.contact.host} is {addresses}")


def connection(line: Line) -> Check:
    if not line.contact.passed("tunnel"):
        return _failed("connection", *connection_trouble(line.contact))
    return _passed("connection", f"{line.where} can be reached")


def encryption(line: Line) -> Check:
    if not line.contact.passed("encryption"):
        return _failed("encryption", *encryption_trouble(line.contact, line.kit))
    now = line.clock()
    if (certificate := line.out_of_time(now)) is not None and not line.clock_is_to_blame:
        whose = "the server" if certificate == line.contact.certificate else "the federation's authority"
        return _failed("encryption", *dates_trouble(certificate, whose, now))
    return _passed("encryption", f"{line.contact.tls}, with a certificate of the federation's CA for {line.contact.host}")


def server_certificate(line: Line) -> Check:
    certificate = line.contact.certificate
    if certificate is None:
        raise LookupError("no certificate")
    days = days_left(certificate, line.date if line.clock_is_to_blame else line.clock())
    if days < CERTIFICATE_WARN_DAYS:
        remedy = "remind the coordinator to renew it: after that day no site can connect"
        return _warned("server certificate", f"expires in {days} days, on {day(certificate.not_valid_after_utc)}", remedy)
    return _passed("server certificate", f"good for {days} days")


def server(line: Line) -> Check:
    """Whether what answers is a server of a federation."""
    if not line.contact.passed("answer"):
        said = f"the server {line.where} takes the connection and then does not answer ({reason(line.contact.error)})"
        return _failed("server", said, "try again, and ask the coordinator whether it is well")
    remedy = f"ask the coordinator whether a federation's server runs at {line.kit.server}"
    if line.answer.status != 200:
        return _failed("server", f"{line.where} answers /health with HTTP status {line.answer.status} instead of 200", remedy)
    try:
        health = line.health
    except ValidationError:
        return _failed("server", f"{line.where} answers /health, but not as the server of a federation does", remedy)
    return _passed("server", f"answers, with BrainUNet-FL {health.brainunet}")


def clock(line: Line) -> Check:
    """How far this machine's clock is from the server's."""
    date = line.date
    if date is None:
        return _warned("clock", "not compared: the server does not tell its time", SET_THE_CLOCK)
    halfway = line.answer.sent + (line.answer.received - line.answer.sent) / 2
    ahead_s = (halfway - date).total_seconds()
    warn, fail = (AHEAD_WARN_S, AHEAD_FAIL_S) if ahead_s > 0 else (BEHIND_WARN_S, BEHIND_FAIL_S)
    off = f"this machine's clock is {spell(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    if line.clock_is_to_blame:
        said = f"{off}, and says {day(halfway)}: so the federation's certificates seem out of their time, and no task comes"
        return _failed("clock", said, SET_THE_CLOCK)
    if abs(ahead_s) > fail:
        return _failed("clock", f"{off}, and the server refuses messages with such a time", SET_THE_CLOCK)
    if abs(ahead_s) >= warn:
        return _warned("clock", f"{off}; the server refuses messages from {fail:g} s on", SET_THE_CLOCK)
    return _passed("clock", "agrees with the server's" if abs(ahead_s) < 1.5 else off)


def federation(line: Line) -> Check:
    if (theirs := line.health.federation) != line.kit.federation:
        said = f"the server is that of the federation {one_line(theirs, 60)!r}, and the kit that of {line.kit.federation!r}"
        return _failed("federation", said, "ask the coordinator for a kit of this federation, or for the right address")
    return _passed("federation", theirs)


def protocol(line: Line) -> Check:
    if (theirs := line.health.protocol) != PROTOCOL:
        said = f"the server speaks protocol {theirs}, and this client protocol {PROTOCOL}"
        return _failed("protocol", said, f"install version {line.health.brainunet} of brainunet-fl, as the server has")
    return _passed("protocol", str(theirs))


def version(line: Line) -> Check:
    if (theirs := line.health.brainunet) != __version__:
        said = f"the server has BrainUNet-FL {theirs}, and this machine {__version__}"
        return _warned("version", said, "ask the coordinator which version all sites should have")
    return _passed("version", theirs)


@dataclass(frozen=True)
class Step:
    """A line of the table below; after a failure of one that ``blocks`` nothing more can be known."""

    name: str
    look: Callable[[Line], Check]
    blocks: bool = False


STEPS: Final = (
    Step("proxy", proxy, blocks=True),
    Step("server name", name, blocks=True),
    Step("connection", connection, blocks=True),
    Step("encryption", encryption, blocks=True),
    Step("server certificate", server_certificate),
    Step("server", server, blocks=True),
    Step("clock", clock),
    Step("federation", federation),
    Step("protocol", protocol),
    Step("version", version),
)


def _passed(name: str, said: str) -> Check:
    return Check(name, "PASS", said, exit_code=NETWORK)


def _warned(name: str, said: str, remedy: str) -> Check:
    return Check(name, "WARN", said, remedy, NETWORK)


def _failed(name: str, said: str, remedy: str) -> Check:
    return Check(name, "FAIL", said, remedy, NETWORK)


def _skipped(name: str, blocked: str) -> Check:
    return Check(name, "WARN", f"not checked, because the check of the {blocked} failed", exit_code=NETWORK)


def spell(seconds: float) -> str:
    """A span of time as a person says it.

    >>> spell(9.6), spell(600), spell(3 * 3600), spell(90 * 86400), spell(40 * 365 * 86400)
    ('10 s', '10 min', '3 h', '90 days', '40 years')
    """
    spans = ((100, "s", 1), (6000, "min", 60), (48 * 3600, "h", 3600), (1000 * 86400, "days", 86400))
    for limit, unit, length in spans:
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 31_557_600:.0f} years"
