"""``flower-server enrol`` and ``revoke``: who is let in, who is put out, and what is written down about it."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from brainunet import chain
from brainunet.certificates import read_certificate, read_request
from brainunet.kit import open_kit, require_kit_of
from brainunet.starter import STARTER
from brainunet_server.authority import certify_site, read_authority
from brainunet_server.federation import Folder
from brainunet_server.roster import read_roster
from tests.support.federation import (
    HOST,
    NAME,
    content,
    done,
    kinds,
    refused,
    told,
)
from tests.support.rights import largest_file


def test_an_enrolled_site_can_open_its_kit(
    fed: Path, requests: dict[str, Path], kit: Path, keys: dict[str, ec.EllipticCurvePrivateKey]
) -> None:
    said = done("enrol", fed, requests["north"], "-o", kit)

    opened = open_kit(kit)
    require_kit_of(opened, keys["north"])
    assert (opened.federation, opened.site, opened.server) == (NAME, "north", f"{HOST}:8443")
    assert opened.registry == f"{HOST}:8444"
    assert f"its request's fingerprint: {read_request(requests['north'].read_bytes()).fingerprint}" in said
    assert f"this federation's fingerprint: {opened.fingerprint}" in said
    assert opened.fingerprint == told("init", fed, "--name", NAME, "--host", HOST)["fingerprint"]
    assert stat.S_IMODE(kit.stat().st_mode) == 0o644
    assert [site.name for site in read_roster(fed / "roster.json").active()] == ["north"]
    entry = chain.head(fed / "audit.jsonl")
    assert entry is not None
    assert (entry.kind, entry.data["site"]) == ("site-enrolled", "north")


def test_the_same_request_again_gives_the_kit_again_and_changes_nothing(
    fed: Path, requests: dict[str, Path], kit: Path
) -> None:
    done("enrol", fed, requests["north"], "-o", kit)
    before, first = content(fed), open_kit(kit)

    again = told("enrol", fed, requests["north"], "-o", kit.with_name("again.json"))

    assert again["change"] == "unchanged"
    assert open_kit(kit.with_name("again.json")).site_certificate == first.site_certificate
    assert content(fed) == before


def test_a_kit_asked_for_again_late_comes_with_a_new_certificate(fed: Path, requests: dict[str, Path], kit: Path) -> None:
    folder, long_ago = Folder(fed), datetime.now(UTC) - timedelta(days=725)
    old = certify_site(
        read_authority(folder.ca_key, folder.ca_certificate), read_request(requests["north"].read_bytes()), now=long_ago
    )
    folder.roster.write_bytes(read_roster(folder.roster).with_enrolled("north", old, long_ago).content())

    assert told("enrol", fed, requests["north"], "-o", kit)["change"] == "renewed"

    assert read_certificate(open_kit(kit).site_certificate).not_valid_after_utc > old.not_valid_after_utc
    assert kinds(fed)[-1] == "site-certificate-renewed"


def test_another_key_for_an_enrolled_site_is_refused_unless_it_replaces_the_first(
    fed: Path, requests: dict[str, Path], kit: Path, keys: dict[str, ec.EllipticCurvePrivateKey]
) -> None:
    done("enrol", fed, requests["north"], "-o", kit)
    before = content(fed)
    assert "say --replace" in refused(4, "enrol", fed, requests["north again"], "-o", kit.with_name("other"))
    assert content(fed) == before
    assert not kit.with_name("other").exists()

    done("enrol", fed, requests["north again"], "-o", kit, "--replace")

    require_kit_of(open_kit(kit), keys["north again"])
    assert kinds(fed)[-2:] == ["site-revoked", "site-enrolled"]
    assert "revoked" in refused(4, "enrol", fed, requests["north"], "--replace")


def test_a_revoked_site_is_out_and_its_key_never_comes_back(fed: Path, requests: dict[str, Path], kit: Path) -> None:
    done("enrol", fed, requests["north"], "-o", kit)

    done("revoke", fed, "north", "--reason", "Schlüssel verloren")

    assert read_roster(fed / "roster.json").active() == ()
    assert "a key that was revoked" in refused(4, "enrol", fed, requests["north"], "-o", kit)
    assert "revoked on" in refused(4, "rotate", fed, "site", "north")
    (row,) = told("sites", fed)
    assert (row["name"], row["reason"], row["state"]) == ("north", "Schlüssel verloren", None)
    assert "site-revoked  public_key_id=" in done("audit", fed, "--last", "1")


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 201])
def test_a_revocation_needs_a_reason_in_one_line(fed: Path, requests: dict[str, Path], kit: Path, reason: str) -> None:
    done("enrol", fed, requests["north"], "-o", kit)

    assert "--reason: " in refused(2, "revoke", fed, "north", "--reason", reason)
    assert len(read_roster(fed / "roster.json").active()) == 1


def test_a_site_that_is_not_there_cannot_be_revoked_or_renewed(fed: Path) -> None:
    assert "no site of this name" in refused(2, "revoke", fed, "north", "--reason", "x")
    assert "no site of this name" in refused(2, "rotate", fed, "site", "north")


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"x" * 20_000, STARTER.read_bytes()[:5000]])
def test_what_is_no_request_enrols_nobody(fed: Path, tmp_path: Path, garbage: bytes) -> None:
    before = content(fed)
    (tmp_path / "request").write_bytes(garbage)

    refused(4, "enrol", fed, tmp_path / "request")
    assert "No such file" in refused(4, "enrol", fed, tmp_path / "nowhere")
    assert content(fed) == before


def test_a_kit_never_takes_the_place_of_another_file(fed: Path, requests: dict[str, Path]) -> None:
    assert "a file that is no kit" in refused(2, "enrol", fed, requests["north"], "-o", fed / "federation.toml")
    assert read_roster(fed / "roster.json").sites == {}


def test_a_kit_that_cannot_be_written_enrols_nobody(fed: Path, requests: dict[str, Path], kit: Path) -> None:
    before = content(fed)

    with largest_file(1):
        assert "it can't be written" in refused(1, "enrol", fed, requests["north"], "-o", kit)

    assert content(fed) == before
    assert not kit.exists()


def test_a_kit_goes_into_a_folder_under_the_name_of_its_site(fed: Path, requests: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "kits").mkdir()

    said = done("enrol", fed, requests["north"], "-o", tmp_path / "kits")

    assert open_kit(tmp_path / "kits" / "north.kit.json").site == "north"
    assert f"send {tmp_path / 'kits' / 'north.kit.json'} to north" in said


@pytest.mark.parametrize("server", ["10.0.0.5:443", f"{HOST}:1"])
def test_a_kit_may_name_another_address_of_the_server(fed: Path, requests: dict[str, Path], kit: Path, server: str) -> None:
    done("enrol", fed, requests["north"], "-o", kit, "--server", server)

    assert open_kit(kit).server == server


@pytest.mark.parametrize("server", ["elsewhere.org:8443", HOST, f"{HOST}:0", f"{HOST}:99999", "https://x:1", ":", "0.0.0.0:1"])
def test_an_address_that_the_site_would_not_trust_is_refused(
    fed: Path, requests: dict[str, Path], kit: Path, server: str
) -> None:
    assert "--server: " in refused(2, "enrol", fed, requests["north"], "-o", kit, "--server", server)
    assert not kit.exists()


def test_a_host_changed_in_the_settings_alone_is_noticed_before_a_kit_names_it(
    fed: Path, requests: dict[str, Path], kit: Path
) -> None:
    settings = fed / "federation.toml"
    settings.write_text(settings.read_text().replace(HOST, "new.example.org"))
    assert "flower-server rotate" in refused(4, "enrol", fed, requests["north"], "-o", kit)

    done("rotate", fed, "server")

    done("enrol", fed, requests["north"], "-o", kit)
    assert open_kit(kit).server == "new.example.org:8443"


def test_a_kit_given_in_place_of_a_request_is_known_and_sent_the_right_way(
    fed: Path, requests: dict[str, Path], kit: Path
) -> None:
    done("enrol", fed, requests["north"], "-o", kit)
    before = content(fed)

    said = refused(4, "enrol", fed, kit, "-o", kit.with_name("other.json"))

    assert "kit.json: a kit, which the coordinator has made for a site, but expected a request made by" in said
    assert "brainunet-client --kit KIT installs it" in said
    assert content(fed) == before


def test_a_folder_for_the_kit_that_is_not_there_is_said_and_not_made(
    fed: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    before, out = content(fed), tmp_path / "kitz" / "north.kit"

    said = refused(2, "enrol", fed, requests["north"], "-o", out)

    assert f"-o: no folder {out.parent}, but expected a folder that is there" in said
    assert f"mkdir -p {out.parent}" in said

    assert not (tmp_path / "kitz").exists()
    assert content(fed) == before
