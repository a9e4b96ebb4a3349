"""The list of sites: one key for a site, one site for a key, and what was revoked stays revoked."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from brainunet.certificates import public_key_id
from brainunet.errors import BrainUNetError, ConfigError, UsageError
from brainunet_server.authority import Authority, renew_site
from brainunet_server.roster import Roster, changing, read_roster
from tests.support.rights import open_folder, ordinary_rights
from tests.support.rosters import NOW, Enrol, authority, enrol, keys

__all__ = ["authority", "enrol", "keys"]  # fixtures


@pytest.fixture(scope="module")
def key_ids(keys: list[ec.EllipticCurvePrivateKey]) -> list[str]:
    return [public_key_id(key.public_key()) for key in keys]


def test_an_enrolled_site_is_active_with_its_key_in_every_spelling(
    enrol: Enrol, keys: list[ec.EllipticCurvePrivateKey], key_ids: list[str]
) -> None:
    (site,) = enrol(Roster(), "north", 0).active()

    assert (site.name, site.public_key_id) == ("north", key_ids[0])
    public = keys[0].public_key()
    assert load_pem_public_key(site.pem) == public


def test_nobody_is_active_in_an_empty_roster() -> None:
    assert Roster().active() == ()


def test_the_same_key_for_the_same_site_is_known_and_another_is_refused(enrol: Enrol, key_ids: list[str]) -> None:
    roster = enrol(Roster(), "north", 0)

    assert roster.require_admissible("north", key_ids[0])
    assert not roster.require_admissible("south", key_ids[1])
    with pytest.raises(
        ConfigError, match=r"another key than this site is enrolled with.*revoke the site first or say --replace"
    ):
        roster.require_admissible("north", key_ids[1])
    assert not roster.require_admissible("north", key_ids[1], replace=True)


@pytest.mark.parametrize("replace", [False, True])
def test_one_key_is_never_two_sites(enrol: Enrol, key_ids: list[str], replace: bool) -> None:
    roster = enrol(Roster(), "north", 0)

    with pytest.raises(ConfigError, match="the key of the site north"):
        roster.require_admissible("south", key_ids[0], replace=replace)


@pytest.mark.parametrize("name", ["north", "south", "elsewhere"])
@pytest.mark.parametrize("replace", [False, True])
def test_a_revoked_key_never_comes_back_under_any_name(enrol: Enrol, key_ids: list[str], name: str, replace: bool) -> None:
    roster = enrol(enrol(Roster(), "north", 0), "south", 1).with_revoked("north", "left us", NOW)

    with pytest.raises(ConfigError, match=r"a key that was revoked .*new key and a new request"):
        roster.require_admissible(name, key_ids[0], replace=replace)


def test_a_revoked_site_comes_back_with_a_new_key_only(enrol: Enrol, key_ids: list[str]) -> None:
    revoked = enrol(Roster(), "north", 0).with_revoked("north", "key lost", NOW)
    assert not revoked.require_admissible("north", key_ids[1])

    back = enrol(revoked, "north", 1)

    assert [(site.name, site.public_key_id) for site in back.active()] == [("north", key_ids[1])]
    assert len(back.site("north").serials) == 2
    with pytest.raises(ConfigError, match="revoked"):
        back.require_admissible("north", key_ids[0])


def test_replaced_keys_stay_out_however_often_a_site_changes_its_key(enrol: Enrol, key_ids: list[str]) -> None:
    roster = enrol(enrol(enrol(Roster(), "north", 0), "north", 1), "north", 2)

    for key in key_ids[:2]:
        with pytest.raises(ConfigError, match="revoked"):
            roster.require_admissible("north", key, replace=True)
    assert roster.require_admissible("north", key_ids[2])


def test_a_revoked_site_is_not_active_and_is_revoked_once(enrol: Enrol) -> None:
    roster = enrol(enrol(Roster(), "north", 0), "south", 1).with_revoked("north", "left us", NOW)

    assert [site.name for site in roster.active()] == ["south"]
    with pytest.raises(ConfigError, match=r"revoked on 2026-03-01 \(left us\)"):
        roster.with_revoked("north", "again", NOW + timedelta(days=1))


def test_a_site_that_is_not_there_names_the_nearest(enrol: Enrol) -> None:
    with pytest.raises(UsageError, match=r"noth: no site of this name \(did you mean north\?\)"):
        enrol(Roster(), "north", 0).with_revoked("noth", "left us", NOW)
    with pytest.raises(UsageError, match="no site is enrolled yet"):
        Roster().site("north")


def test_a_renewed_certificate_keeps_key_and_date_and_remembers_every_serial(enrol: Enrol, authority: Authority) -> None:
    roster = enrol(Roster(), "north", 0)
    (before,) = roster.active()
    from brainunet.certificates import read_certificate

    after = roster.with_renewed("north", renew_site(authority, read_certificate(before.certificate)))

    line, earlier = after.site("north"), roster.site("north")
    assert line.certificate != earlier.certificate
    assert (line.public_key_id, line.enrolled_at) == (earlier.public_key_id, earlier.enrolled_at)
    assert line.serials[0] == earlier.serials[0]
    assert len(set(line.serials)) == 2


def test_a_revoked_site_gets_no_new_certificate(enrol: Enrol, authority: Authority) -> None:
    roster = enrol(Roster(), "north", 0)
    (site,) = roster.active()
    from brainunet.certificates import read_certificate

    with pytest.raises(ConfigError, match="revoked"):
        roster.with_revoked("north", "x", NOW).with_renewed("north", renew_site(authority, read_certificate(site.certificate)))


def test_a_roster_comes_back_from_its_file(enrol: Enrol, tmp_path: Path) -> None:
    roster = enrol(enrol(Roster(), "north", 0), "south", 1).with_revoked("north", "Schlüssel verloren", NOW)

    (tmp_path / "roster.json").write_bytes(roster.content())

    assert read_roster(tmp_path / "roster.json") == roster


def test_a_missing_roster_is_never_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"roster\.json: it is missing.*revoked keys come back"):
        read_roster(tmp_path / "roster.json")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"sites": 3}', b'{"sites": {"../x": {}}}', b"[" * 100_000]
)
def test_a_damaged_roster_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "roster.json").write_bytes(content)

    with pytest.raises(ConfigError, match=r"roster\.json: a damaged list"):
        read_roster(tmp_path / "roster.json")


@pytest.mark.parametrize(
    "change", [{"public_key_id": "0" * 64}, {"certificate": "garbage"}, {"revoked": True}, {"serials": None}]
)
def test_a_line_that_contradicts_itself_is_a_damaged_roster(enrol: Enrol, tmp_path: Path, change: dict[str, object]) -> None:
    told = json.loads(enrol(Roster(), "north", 0).content())
    told["sites"]["north"].update(change)
    (tmp_path / "roster.json").write_text(json.dumps(told))

    with pytest.raises(ConfigError, match="a damaged list"):
        read_roster(tmp_path / "roster.json")


def test_changes_at_the_same_time_lose_none(enrol: Enrol, tmp_path: Path) -> None:
    path, names = tmp_path / "roster.json", [f"site-{number}" for number in range(12)]
    path.write_bytes(Roster().content())
    gate = threading.Barrier(4)

    def add(mine: list[str]) -> None:
        gate.wait()
        for name in mine:
            with changing(path):
                path.write_bytes(enrol(read_roster(path), name, 0).content())

    threads = [threading.Thread(target=add, args=(names[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(read_roster(path).sites) == sorted(names)


def test_a_folder_that_may_not_be_written_is_said() -> None:
    with open_folder() as folder:
        (folder / "roster.json").write_bytes(Roster().content())
        folder.chmod(0o555)
        with (
            ordinary_rights(),
            pytest.raises(BrainUNetError, match="it can't be written") as error,
            changing(folder / "roster.json"),
        ):
            pass
        assert error.value.exit_code == 1
        folder.chmod(0o755)
