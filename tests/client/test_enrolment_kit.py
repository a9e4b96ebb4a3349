"""The second step of joining: which kit is installed, which is refused, and who this site is from then on."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from brainunet import chain
from brainunet.certificates import public_key_id, read_site_key
from brainunet.errors import ChainBroken, ConfigError
from brainunet.kit import Kit
from brainunet.signing import new_signing_key
from brainunet_client.enrolment import install_kit, load_identity, make_request
from brainunet_client.home import Home, open_home
from tests.support.coordinator import SERVER, Coordinator
from tests.support.joining import enrolled, home, joined, kinds, never, no, sent_kit, yes

__all__ = ["home"]  # fixtures


def test_a_good_kit_is_kept_byte_for_byte_and_gives_this_sites_identity(home: Home) -> None:
    path = sent_kit(enrolled(home))
    asked = list[str]()

    def confirm(kit: Kit, fingerprint: str) -> bool:
        asked.append(f"{kit.site} {fingerprint}")
        return True

    kit = install_kit(home, path, confirm)

    assert asked == [f"lagos {kit.fingerprint}"]
    assert home.kit.read_bytes() == path.read_bytes()
    identity = load_identity(home)
    assert identity.kit == kit
    assert public_key_id(identity.private_key.public_key()) == public_key_id(read_site_key(home.key).public_key())
    assert kinds(home) == ["request-made", "kit-installed"]


def test_a_kit_that_is_not_confirmed_is_not_installed(home: Home) -> None:
    path = sent_kit(enrolled(home))

    with pytest.raises(ConfigError, match=r"lagos.kit: a fingerprint that the coordinator did not confirm"):
        install_kit(home, path, no)

    assert not home.kit.exists()
    assert kinds(home) == ["request-made"]


def test_a_kit_before_a_request_is_told_the_two_steps(home: Home, tmp_path: Path) -> None:
    other = enrolled(open_home(tmp_path / "other"))

    with pytest.raises(ConfigError, match=r"no key.*1\. brainunet-client --enrol NAME.*2\. brainunet-client --kit KIT"):
        install_kit(home, sent_kit(other), never)


def test_the_kit_of_another_site_is_refused(home: Home, tmp_path: Path) -> None:
    enrolled(home)
    other = open_home(tmp_path / "other")
    make_request(other, "accra", SERVER)

    with pytest.raises(ConfigError, match=r"kit for accra that was made for another key"):
        install_kit(home, sent_kit(other), never)


def test_the_kit_for_an_earlier_key_is_refused(home: Home) -> None:
    path = sent_kit(enrolled(home))
    make_request(home, "lagos", SERVER, new_key=True)

    with pytest.raises(ConfigError, match="made for another key"):
        install_kit(home, path, never)


@pytest.mark.parametrize("harm", ["cut short", "a letter changed", "expired", "gone", "the request"])
def test_a_kit_that_is_not_good_is_refused_and_nobody_is_asked(home: Home, harm: str) -> None:
    path = sent_kit(enrolled(home), valid=timedelta(days=-1 if harm == "expired" else 1))
    content = path.read_bytes()
    if harm == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "a letter changed":
        path.write_bytes(content.replace(b"fl.example.org", b"fl.evil-ex.org"))
    elif harm == "gone":
        path.unlink()
    elif harm == "the request":
        path.write_bytes(home.request_of("lagos").read_bytes())

    with pytest.raises(ConfigError, match="kit"):
        install_kit(home, path, never)

    assert not home.kit.exists()


@pytest.mark.parametrize("installed", [timedelta(days=30), timedelta(days=-30)])
def test_a_kit_is_renewed_by_its_own_federation_also_after_it_has_expired(home: Home, installed: timedelta) -> None:
    enrolled(home)
    home.kit.write_bytes(sent_kit(home, valid=installed).read_bytes())

    kit = install_kit(home, sent_kit(home, valid=timedelta(days=60), server="new.example.org:443"), yes)

    assert load_identity(home).kit.server == kit.server == "new.example.org:443"
    assert not list(chain.entries(home.ledger))[-1].data["replaces"]


def test_the_kit_of_another_federation_is_refused_even_under_the_same_name_unless_it_is_to_replace(home: Home) -> None:
    joined(home)
    before = home.kit.read_bytes()
    stranger = Coordinator("glioma")
    make_request(home, "lagos", SERVER, new_key=True)

    with pytest.raises(ConfigError, match=r"federation glioma with other keys.*add --replace"):
        install_kit(home, sent_kit(home, stranger), never)
    assert home.kit.read_bytes() == before

    assert install_kit(home, sent_kit(home, stranger), yes, replace=True) == load_identity(home).kit
    assert list(chain.entries(home.ledger))[-1].data["replaces"]


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("installed", [timedelta(days=30), timedelta(days=-30)])
def test_one_key_is_never_for_two_federations(home: Home, replace: bool, installed: timedelta) -> None:
    enrolled(home)
    home.kit.write_bytes(sent_kit(home, valid=installed).read_bytes())
    before = home.kit.read_bytes()

    with pytest.raises(ConfigError, match=r"used with another federation.*--enrol NAME --server HOST:PORT --new-key"):
        install_kit(home, sent_kit(home, Coordinator("glioma")), never, replace=replace)

    assert home.kit.read_bytes() == before


def test_a_coordinator_with_a_new_signing_key_keeps_its_sites(home: Home) -> None:
    by = Coordinator("glioma")
    install_kit(enrolled(home), sent_kit(home, by), yes)
    by.signing_key = new_signing_key()

    with pytest.raises(ConfigError, match=r"federation glioma with other keys.*add --replace"):
        install_kit(home, sent_kit(home, by), never)
    install_kit(home, sent_kit(home, by), yes, replace=True)

    assert load_identity(home).kit.signing_key == by.signing_key.public.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"federation": 3}', b"\xff", b"null"])
def test_next_to_a_damaged_kit_another_is_only_installed_to_replace_it(home: Home, content: bytes) -> None:
    joined(home)
    home.kit.write_bytes(content)

    with pytest.raises(ConfigError, match=r"kit\.json"):
        load_identity(home)
    with pytest.raises(ConfigError, match=r"kit.json: .*nobody knows which federation.*--replace"):
        install_kit(home, sent_kit(home), never)
    install_kit(home, sent_kit(home), yes, replace=True)

    assert load_identity(home).kit.site == "lagos"


def test_the_ledger_is_written_before_the_kit_is_there(home: Home) -> None:
    path = sent_kit(enrolled(home))
    home.ledger.write_text("damaged\n{}\n")

    with pytest.raises(ChainBroken):
        install_kit(home, path, yes)

    assert not home.kit.exists()


def test_without_a_key_an_identity_is_refused_with_the_two_steps(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"no key, .*1\. .*--enrol.*2\. .*--kit"):
        load_identity(home)


def test_without_a_kit_an_identity_is_refused_with_the_file_to_send(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"no kit, .*Send lagos.request to the coordinator; then brainunet-client --kit"):
        load_identity(enrolled(home))


def test_an_expired_kit_gives_no_identity(home: Home) -> None:
    enrolled(home)
    home.kit.write_bytes(sent_kit(home, valid=timedelta(hours=-1)).read_bytes())

    with pytest.raises(ConfigError, match=r"kit.json: .*has expired.*ask the coordinator for a new kit"):
        load_identity(home)


def test_after_a_new_key_the_old_kit_gives_no_identity(home: Home) -> None:
    joined(home)
    make_request(home, "lagos", SERVER, new_key=True)

    with pytest.raises(ConfigError, match="made for another key"):
        load_identity(home)


def test_the_ledger_names_no_path_of_this_machine(home: Home) -> None:
    joined(home)

    text = home.ledger.read_text()
    assert str(home.path.parent) not in text
    assert os.sep not in json.dumps([json.loads(line)["data"] for line in text.splitlines()])
