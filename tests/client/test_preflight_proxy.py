"""A hospital's proxy is used as the client itself uses it, and told from a server that is away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brainunet.certificates import new_site_key
from brainunet.kit import Kit
from brainunet_client.preflight import Check
from brainunet_client.preflight.contact import machine_clock
from brainunet_client.preflight.network_checks import network_checks
from tests.support.authority import new_authority
from tests.support.health import Federation, federation, health_server, no_proxy_of_this_machine
from tests.support.proxy import tunnel

__all__ = ["federation", "no_proxy_of_this_machine"]  # fixtures

pytestmark = pytest.mark.usefixtures("no_proxy_of_this_machine")

KEY = new_site_key()


def look(kit: Kit) -> dict[str, Check]:
    return {check.name: check for check in network_checks(kit, machine_clock)}


def failing(checks: dict[str, Check]) -> Check:
    (check,) = (check for check in checks.values() if check.outcome == "FAIL")
    return check


def test_the_proxy_of_the_environment_is_used_and_named_without_its_password(
    tmp_path: Path, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with health_server(tmp_path, federation) as port, tunnel() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://jane:secret@127.0.0.1:{proxy}")
        checks = look(federation.kit(f"localhost:{port}", KEY))
        monkeypatch.setenv("NO_PROXY", "localhost")
        without = look(federation.kit(f"localhost:{port}", KEY))

    assert {check.outcome for check in checks.values()} == {"PASS"}
    assert checks["proxy"].said == f"by way of 127.0.0.1:{proxy}, as the environment says"
    assert "secret" not in json.dumps([check.said for check in checks.values()])
    assert without["proxy"].said == "none"


def test_a_web_filter_behind_a_proxy_is_named_too(
    tmp_path: Path, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with health_server(tmp_path, Federation(new_authority("Hospital Web Filter"))) as port, tunnel() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy}")

        assert "'Hospital Web Filter'" in failing(look(federation.kit(f"localhost:{port}", KEY))).said


def test_a_proxy_that_refuses_is_told_with_its_reason(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    with tunnel(refuses=407) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy}")
        check = failing(look(federation.kit("fl.example.org:8443", KEY)))

    assert check.name == "connection"
    assert f"the proxy 127.0.0.1:{proxy} does not let through to fl.example.org:8443 (407" in check.said


@pytest.mark.parametrize(
    ("address", "name"), [("http://127.0.0.1:1", "connection"), ("gopher://proxy:1", "proxy"), ("http://[::1", "proxy")]
)
def test_a_wrong_proxy_is_told_from_a_server_that_is_away(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, address: str, name: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    check = failing(look(federation.kit("fl.example.org:8443", KEY)))

    assert check.name == name
    assert "HTTPS_PROXY" in check.remedy
