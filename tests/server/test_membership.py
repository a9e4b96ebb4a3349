"""Who may connect follows the roster while the server runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from brainunet.certificates import make_request, public_key_id, read_certificate, read_request
from brainunet.errors import ConfigError
from brainunet_server.authority import Authority, certify_site
from brainunet_server.federation import Folder
from brainunet_server.membership import Membership
from brainunet_server.roster import Roster
from brainunet_server.status import SiteState
from tests.support.rosters import NOW, Enrol, authority, enrol, keys

__all__ = ["authority", "enrol", "keys"]  # fixtures

SILENCE_S = 100


@dataclass(frozen=True)
class Node:
    site: str
    online: bool
    last_heard: datetime | None


@dataclass
class Doorbook:
    """A door that writes down who was let in and who was shut out."""

    inside: dict[str, str] = field(default_factory=dict)  # site -> key
    said: list[str] = field(default_factory=list)
    heard: dict[str, Node] = field(default_factory=dict)

    def admit(self, site: str, public_key: ec.EllipticCurvePublicKey) -> None:
        assert site not in self.inside or self.inside[site] == public_key_id(public_key), "two keys of one site"
        if site not in self.inside:
            self.said.append(f"{site} in")
        self.inside[site] = public_key_id(public_key)

    def expel(self, site: str) -> None:
        self.said.append(f"{site} out")
        del self.inside[site]

    def nodes(self) -> list[Node]:
        return [self.heard.get(site, Node(site, online=False, last_heard=None)) for site in sorted(self.inside)]


@dataclass
class Followed:
    """A membership and the roster that it follows."""

    folder: Folder
    door: Doorbook = field(default_factory=Doorbook)
    written: int = 0

    def __post_init__(self) -> None:
        self.membership = Membership(self.folder, self.door, SILENCE_S)
        self.follow(Roster())

    def write(self, roster: Roster) -> None:
        self.folder.roster.write_bytes(roster.content())
        self.written += 1  # a coordinator takes longer than a tick of the disk's clock for two commands
        os.utime(self.folder.roster, (0, 1_700_000_000 + self.written))

    def follow(self, roster: Roster) -> None:
        self.write(roster)
        self.membership.follow()

    def told(self) -> list[str]:
        said, self.door.said = self.door.said, []
        return said


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(Folder(tmp_path))


def test_an_enrolled_site_is_let_in_without_a_restart(followed: Followed, enrol: Enrol) -> None:
    assert (followed.membership.size, followed.membership.revoked) == (0, [])

    followed.follow(enrol(Roster(), "north", 0))

    assert followed.told() == ["north in"]
    assert followed.membership.size == 1
    assert [node.site for node in followed.membership.nodes()] == ["north"]


def test_a_revoked_site_is_shut_out_and_named_and_the_others_stay(followed: Followed, enrol: Enrol) -> None:
    roster = enrol(enrol(Roster(), "north", 0), "south", 1)
    followed.follow(roster)
    followed.told()

    followed.follow(roster.with_revoked("north", "left us", NOW))

    assert followed.told() == ["north out"]
    assert (followed.membership.size, followed.membership.revoked) == (1, ["north"])
    assert list(followed.door.inside) == ["south"]


def test_a_site_with_a_new_key_is_shut_out_with_the_old_one_and_let_in_with_the_new_one(
    followed: Followed, enrol: Enrol, keys: list[ec.EllipticCurvePrivateKey]
) -> None:
    roster = enrol(Roster(), "north", 0)
    followed.follow(roster)
    followed.told()

    followed.follow(enrol(roster, "north", 1))

    assert followed.told() == ["north out", "north in"]
    assert followed.door.inside == {"north": public_key_id(keys[1].public_key())}
    assert followed.membership.revoked == []


def test_a_site_that_was_revoked_comes_back_with_a_new_key(followed: Followed, enrol: Enrol) -> None:
    revoked = enrol(Roster(), "north", 0).with_revoked("north", "key lost", NOW)
    followed.follow(revoked)
    assert followed.told() == []

    followed.follow(enrol(revoked, "north", 1))

    assert followed.told() == ["north in"]
    assert followed.membership.revoked == []


def test_a_renewed_certificate_of_the_same_key_changes_nothing_at_the_door(
    followed: Followed, enrol: Enrol, authority: Authority, keys: list[ec.EllipticCurvePrivateKey]
) -> None:
    roster = enrol(Roster(), "north", 0)
    followed.follow(roster)
    followed.told()

    followed.follow(roster.with_renewed("north", certify_site(authority, read_request(make_request(keys[0], "north")))))

    assert followed.told() == []
    assert len(followed.membership.roster.site("north").serials) == 2


def test_a_site_that_is_no_longer_in_the_roster_is_shut_out(followed: Followed, enrol: Enrol) -> None:
    followed.follow(enrol(Roster(), "north", 0))
    followed.told()

    followed.follow(Roster())

    assert followed.told() == ["north out"]
    assert (followed.membership.size, followed.membership.revoked) == (0, [])


def test_a_roster_that_has_not_changed_is_not_read_again(followed: Followed, enrol: Enrol) -> None:
    followed.follow(enrol(Roster(), "north", 0))
    at = followed.folder.roster.stat().st_mtime_ns
    with followed.folder.roster.open("r+b") as file:  # the same file, and as if nobody had touched it
        file.write(b"damaged")
    os.utime(followed.folder.roster, ns=(at, at))

    followed.membership.follow()

    assert followed.membership.size == 1


def test_a_damaged_roster_is_said_each_time_and_who_was_in_stays_in(followed: Followed, enrol: Enrol) -> None:
    roster = enrol(Roster(), "north", 0)
    followed.follow(roster)
    followed.told()
    followed.folder.roster.write_bytes(b"{}}")

    for _ in range(2):
        with pytest.raises(ConfigError, match="a damaged list"):
            followed.membership.follow()
    assert followed.told() == []
    assert followed.membership.size == 1

    followed.follow(roster.with_revoked("north", "left us", NOW))
    assert followed.told() == ["north out"]


def test_a_roster_that_is_gone_is_said_with_words(followed: Followed) -> None:
    followed.folder.roster.unlink()

    with pytest.raises(ConfigError, match=r"roster\.json: it is missing"):
        followed.membership.follow()


def test_only_who_is_online_and_was_heard_lately_can_be_asked(followed: Followed, enrol: Enrol) -> None:
    followed.follow(enrol(enrol(enrol(Roster(), "east", 0), "north", 1), "south", 2))
    now, silent = datetime.now(UTC), datetime.now(UTC) - timedelta(seconds=SILENCE_S)
    assert followed.membership.connected() == []

    followed.door.heard = {
        "east": Node("east", online=True, last_heard=silent),  # its power went
        "north": Node("north", online=True, last_heard=silent + timedelta(seconds=30)),
        "south": Node("south", online=False, last_heard=now),  # it has said goodbye
    }
    assert followed.membership.connected() == ["north"]

    followed.door.heard["east"] = Node("east", online=True, last_heard=now)
    assert followed.membership.connected() == ["east", "north"]


def test_the_store_is_told_who_may_connect_and_until_when(followed: Followed, enrol: Enrol) -> None:
    roster = enrol(enrol(Roster(), "north", 0), "south", 1).with_revoked("south", "left us", NOW)
    followed.follow(roster)
    states = (
        SiteState(name="north", state="working", last_seen=NOW, client_version="0.1.0"),
        SiteState(name="south", state="revoked"),
        SiteState(name="nobody", state="connected"),
    )

    north, south = followed.membership.seen(states)

    assert (north.name, north.state, north.last_seen_at, north.client_version) == ("north", "working", NOW, "0.1.0")
    assert (north.enrolled_at, north.revoked_at) == (NOW, None)
    assert north.certificate_expires_at == read_certificate(roster.site("north").certificate).not_valid_after_utc
    assert (south.name, south.state, south.last_seen_at, south.revoked_at) == ("south", "revoked", None, NOW)
