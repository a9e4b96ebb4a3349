"""The first step of joining: a key made once, and a request that says no more than it must."""

from __future__ import annotations

import stat

import pytest

from brainunet import chain
from brainunet.certificates import make_request as certified_request
from brainunet.certificates import new_site_key, public_key_id, read_request, read_site_key
from brainunet.errors import BrainUNetError, ConfigError, UsageError
from brainunet_client.enrolment import make_request, requested_server
from brainunet_client.home import Home
from brainunet_client.site_settings import SiteSettings, read_site_settings
from tests.support.coordinator import SERVER
from tests.support.joining import enrolled, home, joined, kinds
from tests.support.rights import largest_file

__all__ = ["home"]  # fixtures


def files(home: Home) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.path.iterdir() if path.is_file()}


def test_a_request_holds_the_name_and_the_key_of_this_home(home: Home) -> None:
    request = make_request(home, "lagos", SERVER)

    read = read_request(home.request_of("lagos").read_bytes())
    assert (read.name, read.fingerprint) == ("lagos", request.fingerprint)
    assert public_key_id(read.public_key) == public_key_id(read_site_key(home.key).public_key())
    assert home.request == home.request_of("lagos")


def test_everything_made_is_for_its_owner_alone(home: Home) -> None:
    joined(home)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.path.iterdir() if path.is_file()}
    assert set(modes) == {"site.key", "lagos.request", "site.toml", "excluded-cases.txt", "ledger.jsonl", "kit.json"}
    assert set(modes.values()) == {0o600}


def test_enrolling_writes_settings_to_fill_in_and_leaves_those_that_are_there(home: Home) -> None:
    enrolled(home)
    assert read_site_settings(home) == SiteSettings()

    home.settings.write_text("min_cases = 9")
    home.consent.write_text("jane\n")
    enrolled(home)
    assert (home.settings.read_text(), home.consent.read_text()) == ("min_cases = 9", "jane\n")


def test_a_second_call_gives_the_same_request_and_a_line_in_the_ledger_only_for_another_server(home: Home) -> None:
    first = make_request(home, "lagos", SERVER)
    before = files(home)

    second = make_request(home, "lagos", SERVER)
    assert (second.pem, files(home)) == (first.pem, before)
    assert kinds(home) == ["request-made"]

    assert make_request(home, "lagos", "fl.example.org:9443").pem == first.pem
    assert kinds(home) == ["request-made"] * 2
    assert requested_server(home) == "fl.example.org:9443"


def test_another_name_is_refused_and_nothing_changes(home: Home) -> None:
    before = files(enrolled(home))

    with pytest.raises(UsageError, match=r"--enrol: the name accra, while .* of lagos, but expected lagos.*--new-key"):
        make_request(home, "accra", SERVER)

    assert files(home) == before


def test_a_new_key_sets_the_old_one_and_its_request_aside_and_loses_neither(home: Home) -> None:
    before = files(enrolled(home))

    request = make_request(home, "accra", SERVER, new_key=True)

    after = files(home)
    assert request.name == "accra"
    assert home.request == home.request_of("accra")
    assert after["site.key"] != before["site.key"]
    for name in ("site.key", "lagos.request"):
        (aside,) = [content for other, content in after.items() if other.startswith(f"{name}.old-")]
        assert aside == before[name]
    assert next(e.data["new_key"] for e in chain.entries(home.ledger) if e.number == 2)
    make_request(home, "accra", SERVER, new_key=True)
    assert len(list(home.path.glob("site.key.old-*"))) == 2


def test_a_new_key_where_there_is_none_is_simply_a_key(home: Home) -> None:
    assert make_request(home, "lagos", SERVER, new_key=True).name == "lagos"


@pytest.mark.parametrize("name", ["", "no spaces", "../etc", "-x", "x" * 41, "Jos\u00e9", "a\n"])
def test_a_name_that_can_not_be_is_refused_before_anything_is_made(home: Home, name: str) -> None:
    with pytest.raises(ConfigError, match="name of the site"):
        make_request(home, name, SERVER)

    assert files(home) == {}


@pytest.mark.parametrize("server", ["", "example.org", "example.org:0", "https://example.org:8443", "a b:8443", "h:99999"])
def test_a_server_that_is_no_address_is_refused_before_anything_is_made(home: Home, server: str) -> None:
    with pytest.raises(UsageError, match=r"--server: .*host:port"):
        make_request(home, "lagos", server)

    assert files(home) == {}


@pytest.mark.parametrize("harm", ["gone", "cut short", "of another key"])
def test_a_request_that_does_not_belong_to_the_key_is_made_again_with_the_same_key(home: Home, harm: str) -> None:
    key = files(enrolled(home))["site.key"]
    path = home.request_of("lagos")
    if harm == "gone":
        path.unlink()
    else:
        other = certified_request(new_site_key(), "lagos")
        path.write_bytes(path.read_bytes()[:100] if harm == "cut short" else other)

    request = make_request(home, "lagos", SERVER)

    assert home.key.read_bytes() == key
    assert public_key_id(request.public_key) == public_key_id(read_site_key(home.key).public_key())
    assert read_request(path.read_bytes()).fingerprint == request.fingerprint
    assert len(list(home.path.glob("*.old-*"))) == (harm != "gone")


def test_cut_off_between_setting_a_key_aside_and_making_one_it_goes_on(home: Home) -> None:
    enrolled(home)
    home.key.rename(home.path / "site.key.old-20260301-120000-abcd")

    request = make_request(home, "lagos", SERVER)

    assert public_key_id(request.public_key) == public_key_id(read_site_key(home.key).public_key())


def test_a_key_that_can_not_be_read_is_never_replaced_unasked(home: Home) -> None:
    enrolled(home)
    home.key.write_text("damaged")

    with pytest.raises(ConfigError, match=r"site.key: .*backup"):
        make_request(home, "lagos", SERVER)

    assert home.key.read_text() == "damaged"
    assert make_request(home, "lagos", SERVER, new_key=True).name == "lagos"


def test_a_full_disk_is_said_and_with_room_again_it_goes_on(home: Home) -> None:
    with largest_file(0), pytest.raises(BrainUNetError, match="Free space"):
        make_request(home, "lagos", SERVER)

    assert make_request(home, "lagos", SERVER).name == "lagos"
