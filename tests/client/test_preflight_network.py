"""What keeps a site from its federation's server is found, told in words, and says what to do."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from contextlib import closing
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from brainunet.certificates import new_site_key
from brainunet.kit import Kit
from brainunet.records import PROTOCOL
from brainunet_client.enrolment import Identity
from brainunet_client.preflight import Check, diagnose
from brainunet_client.preflight.contact import Clock, contact, machine_clock
from brainunet_client.preflight.network_checks import STEPS, network_checks
from tests.support.authority import new_authority
from tests.support.health import Federation, Says, federation, health_server, no_proxy_of_this_machine, now, talking

__all__ = ["federation", "no_proxy_of_this_machine"]  # fixtures

pytestmark = pytest.mark.usefixtures("no_proxy_of_this_machine")

KEY = new_site_key()


def look(kit: Kit, clock: Clock = machine_clock) -> dict[str, Check]:
    checks = network_checks(kit, clock)
    assert [check.name for check in checks] == [step.name for step in STEPS]
    return {check.name: check for check in checks}


def failing(checks: dict[str, Check]) -> Check:
    """The only check that failed: it says what to do, and ends the command with 6."""
    (check,) = (check for check in checks.values() if check.outcome == "FAIL")
    assert check.remedy
    assert check.exit_code == 6
    return check


def skipped(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if check.outcome == "WARN" and check.said.startswith("not checked, because")}


def test_a_good_server_passes_every_check(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, federation) as port:
        kit = federation.kit(f"localhost:{port}", KEY)
        checks = look(kit)

        assert diagnose(Identity(kit, KEY)) is None

    assert {check.outcome for check in checks.values()} == {"PASS"}
    assert "127.0.0.1" in checks["server name"].said
    assert "TLSv1.3" in checks["encryption"].said
    assert checks["proxy"].said == "none"


def test_a_server_by_its_ip_address_is_as_good(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, federation) as port:
        assert diagnose(Identity(federation.kit(f"127.0.0.1:{port}", KEY), KEY)) is None


def test_capital_letters_in_the_servers_name_are_no_proxy(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, federation) as port:
        checks = look(federation.kit(f"LocalHost:{port}", KEY))

    assert {check.outcome for check in checks.values()} == {"PASS"}
    assert checks["proxy"].said == "none"


def test_a_certificate_of_another_authority_names_who_issued_it(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, Federation(new_authority("Hospital Web Filter"))) as port:
        checks = look(federation.kit(f"localhost:{port}", KEY))

    assert failing(checks).name == "encryption"
    assert "issued by 'Hospital Web Filter'" in checks["encryption"].said
    assert "ask your IT" in checks["encryption"].remedy
    assert skipped(checks) == {"server certificate", "server", "clock", "federation", "protocol", "version"}


def test_a_federation_that_was_set_up_anew_is_told_from_a_web_filter(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, Federation()) as port:
        check = failing(look(federation.kit(f"localhost:{port}", KEY)))

    assert "authority in the kit" in check.said
    assert "new kit" in check.remedy


def test_a_certificate_for_another_host_says_which_names_it_has(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, federation, hosts=["fl.example.org", "10.1.2.3"]) as port:
        check = failing(look(federation.kit(f"localhost:{port}", KEY)))

    assert check.name == "encryption"
    assert check.said == "the certificate of the server is for fl.example.org, 10.1.2.3, not for localhost"


def test_a_certificate_for_no_host_and_one_for_many_read_well(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, federation, hosts=[]) as port:
        assert "is for no host at all, not" in failing(look(federation.kit(f"localhost:{port}", KEY))).said
    with health_server(tmp_path, federation, hosts=[f"host{i}.example.org" for i in range(9)]) as port:
        assert "host4.example.org and 4 more, not" in failing(look(federation.kit(f"localhost:{port}", KEY))).said


@pytest.mark.parametrize(("start", "end", "words"), [(-9, -2, "expired on"), (2, 9, "is not valid before")])
def test_a_certificate_out_of_its_time_tells_both_dates(
    tmp_path: Path, federation: Federation, start: int, end: int, words: str
) -> None:
    with health_server(tmp_path, federation, start=start, end=end) as port:
        check = failing(look(federation.kit(f"localhost:{port}", KEY)))

    assert check.name == "encryption"
    assert f"the certificate of the server {words} {now() + timedelta(days=end if end < 0 else start):%Y-%m-%d}" in check.said
    assert f"this machine's clock says {now():%Y-%m-%d}" in check.said
    assert "clock" in check.remedy


def test_a_certificate_in_its_last_month_is_a_warning(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, federation, end=12.5) as port:
        check = look(federation.kit(f"localhost:{port}", KEY))["server certificate"]

    assert check.outcome == "WARN"
    assert "expires in 12 days" in check.said


def test_another_federations_server_is_refused_and_its_name_cannot_write_on_the_screen(
    tmp_path: Path, federation: Federation
) -> None:
    with health_server(tmp_path, federation, Says().but(federation="stroke\x1b[2J\nPASS")) as port:
        check = failing(look(federation.kit(f"localhost:{port}", KEY)))

    assert check.name == "federation"
    assert "'stroke?[2J?PASS'" in check.said
    assert "'glioma'" in check.said


def test_another_protocol_fails_and_another_version_warns(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, federation, Says().but(protocol=PROTOCOL + 1, brainunet="9.9.9")) as port:
        checks = look(federation.kit(f"localhost:{port}", KEY))

    assert failing(checks).name == "protocol"
    assert f"protocol {PROTOCOL + 1}" in checks["protocol"].said
    assert "9.9.9" in checks["protocol"].remedy
    assert checks["version"].outcome == "WARN"


@pytest.mark.parametrize(
    ("seconds", "outcome", "words"),
    [
        (0, "PASS", "agrees"),
        (3, "WARN", "3 s ahead of the server's"),
        (10, "FAIL", "10 s ahead of the server's"),
        (-20, "PASS", "20 s behind the server's"),
        (-90, "WARN", "90 s behind the server's"),
        (-600, "FAIL", "10 min behind the server's"),
    ],
)
def test_a_clock_that_the_server_would_refuse_fails(
    tmp_path: Path, federation: Federation, seconds: int, outcome: str, words: str
) -> None:
    moment = now().replace(microsecond=0)
    half = timedelta(seconds=0.5)  # of the second that the server's header tells
    with health_server(tmp_path, federation, Says(date=format_datetime(moment, usegmt=True))) as port:
        check = look(federation.kit(f"localhost:{port}", KEY), lambda: moment + timedelta(seconds=seconds) + half)["clock"]

    assert check.outcome == outcome
    assert words in check.said
    assert ("timedatectl set-ntp true" in check.remedy) == (outcome != "PASS")


def test_the_clock_is_compared_with_the_servers_and_not_with_the_truth(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, federation, Says(date=format_datetime(now() + timedelta(hours=3), usegmt=True))) as port:
        assert "3 h behind" in failing(look(federation.kit(f"localhost:{port}", KEY))).said


@pytest.mark.parametrize(("years", "words"), [(-40, "years behind the server's"), (60, "years ahead of the server's")])
def test_a_clock_that_is_years_off_is_named_as_the_cause_and_hides_no_other_check(
    tmp_path: Path, federation: Federation, years: int, words: str
) -> None:
    absurd = now() + timedelta(days=365.25 * years)

    with health_server(tmp_path, federation, Says().but(protocol=PROTOCOL + 1), end=40) as port:
        checks = look(federation.kit(f"localhost:{port}", KEY), lambda: absurd)
        sentence = diagnose(Identity(federation.kit(f"localhost:{port}", KEY), KEY), lambda: absurd)

    assert {name for name, check in checks.items() if check.outcome == "FAIL"} == {"clock", "protocol"}
    assert f"{abs(years)} {words}, and says {absurd:%Y-%m-%d}" in checks["clock"].said
    assert "certificates seem out of their time" in checks["clock"].said
    assert checks["server certificate"].said == "good for 39 days"  # by the server's clock
    assert checks["federation"].outcome == "PASS"
    assert not skipped(checks)
    assert sentence is not None
    assert sentence.startswith("this machine's clock is")


def test_where_the_server_tells_no_time_its_certificate_is_what_is_named(tmp_path: Path, federation: Federation) -> None:
    with health_server(tmp_path, federation, Says(date="")) as port:
        checks = look(federation.kit(f"localhost:{port}", KEY), lambda: now() - timedelta(days=3650))

    assert failing(checks).name == "encryption"
    assert "correct this machine's clock if that is wrong" in checks["encryption"].remedy


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Foo 9999 99:99:99 GMT"])
def test_a_server_without_a_time_leaves_the_clock_unchecked(tmp_path: Path, federation: Federation, date: str) -> None:
    with health_server(tmp_path, federation, Says(date=date)) as port:
        assert look(federation.kit(f"localhost:{port}", KEY))["clock"].outcome == "WARN"


@pytest.mark.parametrize(
    "says",
    [
        Says(status=503),
        Says(body=b""),
        Says(body=b"<html>Please log in</html>"),
        Says(body=b"[1]"),
        Says(body=b"[" * 100_000),
        Says().but(protocol=str(PROTOCOL)),
        Says().but(brainunet="\x1b[31m"),
        Says().but(federation=None),
        Says(body=b" " * 70_000 + Says().body),
    ],
)
def test_something_else_that_answers_is_not_taken_for_a_federations_server(
    tmp_path: Path, federation: Federation, says: Says
) -> None:
    with health_server(tmp_path, federation, says) as port:
        checks = look(federation.kit(f"localhost:{port}", KEY))

    assert failing(checks).name == "server"
    assert skipped(checks) == {"clock", "federation", "protocol", "version"}


def test_a_port_where_nobody_listens_is_told_in_one_sentence(federation: Federation) -> None:
    kit = federation.kit(f"127.0.0.1:{free_port()}", KEY)
    checks = look(kit)

    assert failing(checks).name == "connection"
    assert checks["connection"].said.startswith("the server 127.0.0.1 does not answer on port ")
    assert "connection refused" in checks["connection"].said
    assert "encryption" in skipped(checks)
    sentence = diagnose(Identity(kit, KEY))
    assert sentence == f"{checks['connection'].said}: {checks['connection'].remedy}"
    assert "\n" not in sentence


def test_a_name_without_an_address_is_told(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    check = failing(look(federation.kit("fl.example.org:8443", KEY)))

    assert check.name == "server name"
    assert check.said == "the address of the server fl.example.org can't be found (name or service not known)"


def test_a_silent_dns_ends_the_wait(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def late(*_: Any, **__: Any) -> None:
        answered.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", late)
    found = contact("fl.example.org:8443", federation.kit("a:1", KEY).ca_certificate, step_s=0.1)
    answered.set()

    assert found.stage == "name"
    assert isinstance(found.error, TimeoutError)


@pytest.mark.parametrize("first_words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_that_speaks_no_tls_is_told(federation: Federation, first_words: bytes) -> None:
    with talking(first_words) as port:
        check = failing(look(federation.kit(f"127.0.0.1:{port}", KEY)))

    assert check.name == "encryption"
    assert "without speaking TLS" in check.said


def test_a_port_that_only_takes_the_connection_ends_the_wait(federation: Federation) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        found = contact(f"127.0.0.1:{port}", federation.kit("a:1", KEY).ca_certificate, step_s=0.1)

    assert found.stage == "encryption"
    assert found.error is not None


def test_a_server_that_drips_its_answer_ends_the_wait(
    tmp_path: Path, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def drip(self: http.server.BaseHTTPRequestHandler) -> None:
        while not over.wait(0.05):  # each byte comes well within the patience with one step
            self.wfile.write(b"X")

    monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "handle_one_request", drip)
    monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "handle", drip)
    with health_server(tmp_path, federation) as port:
        started = time.monotonic()
        found = contact(f"localhost:{port}", federation.kit("a:1", KEY).ca_certificate, step_s=0.3)
        over.set()

    assert time.monotonic() - started < 2
    assert found.stage == "answer"
    assert isinstance(found.error, TimeoutError)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])
