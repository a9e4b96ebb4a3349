"""``brainunet-client --enrol`` and ``--kit``: how a hospital joins, as a person there types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainunet.kit import open_kit
from brainunet_client.cli import main as brainunet_client
from brainunet_client.home import Home
from tests.support.coordinator import SERVER, Coordinator, coordinator
from tests.support.simulation import run
from tests.support.typed import home, install, kit

__all__ = ["home", "kit"]  # fixtures


def test_enrolling_puts_the_request_where_one_stands_and_says_what_to_do_with_it(home: Home) -> None:
    ended = run(brainunet_client, "--enrol", "lagos", "--server", SERVER)

    assert ended.code == 0, ended.err
    request = Path("lagos.request")
    assert request.read_bytes() == home.request_of("lagos").read_bytes()
    assert f"request of lagos: {request.absolute()}" in ended.out
    assert "fingerprint: " in ended.out
    assert "no patient data" in ended.out
    assert f"1. Send the file to the coordinator of {SERVER}" in ended.out
    assert "2. When a kit comes back: brainunet-client --kit KIT" in ended.out
    assert str(home.settings) in ended.out


def test_enrolling_twice_says_the_same_twice(home: Home) -> None:
    first = run(brainunet_client, "--enrol", "lagos", "--server", SERVER)

    assert run(brainunet_client, "--enrol", "lagos", "--server", SERVER) == first


def test_enrolling_from_within_the_home_needs_no_copy(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.path.mkdir(mode=0o700)
    monkeypatch.chdir(home.path)

    ended = run(brainunet_client, "--enrol", "lagos", "--server", SERVER)

    assert f"request of lagos: {home.request_of('lagos')}\n" in ended.out
    assert len(list(home.path.glob("*.request*"))) == 1


def test_where_no_copy_can_be_made_the_kept_request_is_named(home: Home) -> None:
    Path("lagos.request").mkdir()

    ended = run(brainunet_client, "--enrol", "lagos", "--server", SERVER)

    assert ended.code == 0, ended.err
    assert f"request of lagos: {home.request_of('lagos')}\n" in ended.out


def test_a_kit_is_shown_and_installed_when_the_answer_is_yes(home: Home, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = install(kit, "y\n", monkeypatch)

    assert ended.code == 0, ended.err
    for line in ("federation:  glioma", f"server:      {SERVER}\n", "site:        lagos", "valid until: 20"):
        assert line in ended.out
    assert f"fingerprint: {open_kit(kit).fingerprint}" in ended.out
    assert "Does the coordinator read out the same numbers? [y/N]" in ended.out
    assert "brainunet-client --data DIR takes part as lagos" in ended.out
    assert home.kit.read_bytes() == kit.read_bytes()


@pytest.mark.parametrize("typed", ["n\n", "\n", "no\n"])
def test_any_other_answer_installs_nothing(home: Home, kit: Path, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    ended = install(kit, typed, monkeypatch)

    assert ended.code == 4
    assert "lagos.kit: a fingerprint that the coordinator did not confirm" in ended.err
    assert not home.kit.exists()


def test_a_server_that_is_not_the_one_asked_is_pointed_out(home: Home, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.write_bytes(coordinator().kit(Path("lagos.request").read_bytes(), server="other.example.org:443"))

    assert f"server:      other.example.org:443 (you asked {SERVER})" in install(kit, "y\n", monkeypatch).out


@pytest.mark.parametrize("spelling", ["{}", "{} ", "  {}\n"])
def test_with_the_right_numbers_nothing_is_asked(home: Home, kit: Path, spelling: str) -> None:
    numbers = open_kit(kit).fingerprint

    for told in (spelling.format(numbers), numbers.replace(" ", ""), numbers.replace(" ", "-")):
        ended = run(brainunet_client, "--kit", kit, "--fingerprint", told)
        assert ended.code == 0, ended.err
        assert "?" not in ended.out


@pytest.mark.parametrize("numbers", ["12345 12345 12345 12345 12345 12345", "", "none", "12345"])
def test_with_other_numbers_nothing_is_installed(home: Home, kit: Path, numbers: str) -> None:
    ended = run(brainunet_client, "--kit", kit, "--fingerprint", numbers)

    assert ended.code == 4
    # the right numbers come from the coordinator's mouth: whoever could paste them from here would have compared nothing
    assert open_kit(kit).fingerprint not in ended.err + ended.out
    assert "ask for it by another way" in ended.err
    assert not home.kit.exists()


def test_without_a_terminal_and_without_numbers_nobody_can_be_asked(home: Home, kit: Path) -> None:
    ended = run(brainunet_client, "--kit", kit)

    assert ended.code == 2
    assert "no terminal to ask on, and no --fingerprint" in ended.err
    assert not home.kit.exists()


def test_another_federation_takes_the_word_replace(home: Home, kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert install(kit, "y\n", monkeypatch).code == 0
    stranger = Coordinator("other")
    kit.write_bytes(stranger.kit(Path("lagos.request").read_bytes()))
    refused = install(kit, "y\n", monkeypatch, "--replace")
    assert (refused.code, "--new-key" in refused.err) == (4, True)
    assert run(brainunet_client, "--enrol", "lagos", "--server", SERVER, "--new-key").code == 0
    kit.write_bytes(stranger.kit(Path("lagos.request").read_bytes()))

    refused = install(kit, "y\n", monkeypatch)
    assert (refused.code, "--replace" in refused.err) == (4, True)
    assert install(kit, "y\n", monkeypatch, "--replace").code == 0
    assert open_kit(home.kit).federation == "other"


def test_a_site_with_a_key_and_no_kit_is_told_which_file_to_send(home: Home, kit: Path) -> None:
    ended = run(brainunet_client, "--data", ".")

    assert ended.code == 4
    assert "Send lagos.request to the coordinator; then brainunet-client --kit KIT" in ended.err


def test_another_sites_request_that_lies_here_is_not_overwritten_and_nothing_is_made(home: Home) -> None:
    Path("lagos.request").write_bytes(b"of somebody else")

    ended = run(brainunet_client, "--enrol", "lagos", "--server", SERVER)

    assert (ended.code, ended.out) == (4, "")
    assert f"lagos.request: there is another request of this name in {Path.cwd()}" in ended.err
    assert "Move that file away, or give this command in another folder" in ended.err
    assert Path("lagos.request").read_bytes() == b"of somebody else"
    assert not home.path.exists()


def test_this_sites_own_earlier_request_gives_way_to_that_of_its_new_key(home: Home) -> None:
    assert run(brainunet_client, "--enrol", "lagos", "--server", SERVER).code == 0
    before = Path("lagos.request").read_bytes()

    ended = run(brainunet_client, "--enrol", "lagos", "--server", SERVER, "--new-key")

    assert ended.code == 0, ended.err
    assert Path("lagos.request").read_bytes() == home.request_of("lagos").read_bytes() != before


def test_a_request_given_in_place_of_the_kit_is_known_and_sent_the_right_way(home: Home, kit: Path) -> None:
    ended = run(brainunet_client, "--kit", "lagos.request", "--fingerprint", "1")

    assert (ended.code, ended.out) == (4, "")
    assert "lagos.request: a site's request to join, but expected the kit that the coordinator sent. It" in ended.err
    assert "flower-server enrol DIR NAME.request" in ended.err


def test_a_key_given_in_place_of_the_kit_is_known_for_what_it_is(home: Home, kit: Path) -> None:
    ended = run(brainunet_client, "--kit", home.key, "--fingerprint", "1")

    assert ended.code == 4
    assert "site.key: a private key, but expected the kit" in ended.err
