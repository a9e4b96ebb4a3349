"""What the running server tells of itself and its sites, and the thread that tells it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from brainunet.errors import BrainUNetError
from brainunet_server.federation import Folder
from brainunet_server.presence import SILENT_AFTER, Board, Ticking, changes
from brainunet_server.round_results import RoundResult, SiteResult
from brainunet_server.status import SiteState, Status, read_status
from tests.support.replies import START


@dataclass(frozen=True)
class Node:
    site: str
    last_heard: datetime | None = None


def heard(site: str, ago: timedelta = timedelta(0)) -> Node:
    return Node(site, datetime.now(UTC) - ago)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(Folder(tmp_path), run="glioma-1", rounds=30, min_sites=2, address="fl.example.org:8443")


def states(status: Status) -> dict[str, str]:
    return {site.name: site.state for site in status.sites}


def test_before_anything_has_happened_it_is_starting(board: Board) -> None:
    told = board.write([], [])

    assert (told.state, told.message, told.run, told.round, told.rounds) == ("starting", "starting", "glioma-1", 0, 30)
    assert (told.min_sites, told.address, told.sites) == (2, "fl.example.org:8443", ())
    assert (told.round_started_at, told.deadline_at) == (None, None)
    assert read_status(board.folder) == told


def test_a_site_is_never_seen_then_connected_working_silent_and_revoked(board: Board) -> None:
    assert states(board.write([Node("CRV")], [])) == {"CRV": "never seen"}
    assert states(board.write([heard("CRV")], [])) == {"CRV": "connected"}
    board.begin(3, ["CRV"], None)
    assert states(board.write([heard("CRV")], [])) == {"CRV": "working"}
    assert states(board.write([heard("CRV", SILENT_AFTER)], [])) == {"CRV": "silent"}
    board.heard_from("CRV")
    assert states(board.write([heard("CRV", SILENT_AFTER / 2)], [])) == {"CRV": "connected"}
    assert states(board.write([], ["CRV"])) == {"CRV": "revoked"}


def test_sites_stand_in_the_order_of_their_names_with_when_they_were_seen(board: Board) -> None:
    nodes = [heard("NKDC"), Node("LASUTH"), heard("CRV", SILENT_AFTER)]

    told = board.write(nodes, ["ABUTH"])

    assert [site.name for site in told.sites] == ["ABUTH", "CRV", "LASUTH", "NKDC"]
    assert [site.last_seen for site in told.sites] == [None, nodes[2].last_heard, None, nodes[0].last_heard]


def test_a_round_says_for_whom_it_waits_and_until_when(board: Board) -> None:
    board.begin(3, ["NKDC", "CRV"], 3600)
    told = board.write([], [])

    assert (told.state, told.round, told.message) == ("running", 3, "round 3: waiting for NKDC, CRV")
    assert told.round_started_at is not None
    assert told.deadline_at == told.round_started_at + timedelta(hours=1)

    board.heard_from("NKDC")
    assert board.write([], []).message == "round 3: waiting for CRV"
    board.heard_from("CRV")
    board.heard_from("LASUTH")  # of a site that was not asked there is nothing to say


def test_without_a_deadline_none_is_told(board: Board) -> None:
    board.begin(1, ["CRV"], None)

    assert board.write([], []).deadline_at is None


def test_the_exchange_after_the_last_round_is_told_as_scoring(board: Board) -> None:
    board.begin(31, ["CRV"], None)

    told = board.write([], [])

    assert (told.round, told.message) == (30, "scoring the last model: waiting for CRV")


def test_the_end_of_a_round_says_what_each_site_did(board: Board) -> None:
    board.begin(3, ["CRV", "LASUTH", "NKDC"], 60)
    board.heard_from("CRV")
    sites = (
        SiteResult("CRV", "answered", client_version="0.1.0"),
        SiteResult("LASUTH", "fault", "disk_full"),
        SiteResult("NKDC", "absent", "no reply in time"),
    )

    board.end(RoundResult(3, sites, START))
    told = board.write([heard("CRV"), heard("LASUTH"), Node("NKDC")], [])

    assert (told.message, told.deadline_at, told.round_started_at, told.round) == ("round 3: done", None, None, 3)
    assert [(site.state, site.last_outcome, site.client_version) for site in told.sites] == [
        ("connected", "round 3: answered", "0.1.0"),
        ("connected", "round 3: fault, disk_full", None),
        ("never seen", "round 3: absent, no reply in time", None),
    ]


def test_what_a_site_did_in_an_earlier_round_stays_until_it_does_something_else(board: Board) -> None:
    board.end(RoundResult(3, (SiteResult("CRV", "answered", client_version="0.1.0"),), START))
    board.end(RoundResult(4, (SiteResult("NKDC", "answered"),), START))
    board.end(RoundResult(5, (SiteResult("CRV", "absent", "not connected"),), START))

    told = board.write([heard("CRV"), heard("NKDC")], [])

    assert [site.last_outcome for site in told.sites] == ["round 5: absent, not connected", "round 4: answered"]
    assert told.sites[0].client_version == "0.1.0"


def test_a_state_can_be_said_at_any_time(board: Board) -> None:
    board.say("waiting for sites", "2 sites are needed, connected: none")

    told = board.write([], [])

    assert (told.state, told.message) == ("waiting for sites", "2 sites are needed, connected: none")


def state(name: str, what: str) -> SiteState:
    return SiteState.model_validate({"name": name, "state": what})


@pytest.mark.parametrize("gone", ["silent", "never seen", "revoked"])
@pytest.mark.parametrize("here", ["connected", "working"])
def test_a_site_joins_when_it_is_heard_and_leaves_when_it_is_not(here: str, gone: str) -> None:
    assert changes({}, [state("CRV", here)]) == (["CRV"], [])
    assert changes({"CRV": gone}, [state("CRV", here)]) == (["CRV"], [])
    assert changes({"CRV": here}, [state("CRV", gone)]) == ([], ["CRV"])
    assert changes({"CRV": gone}, [state("CRV", gone)]) == ([], [])
    assert changes({}, [state("CRV", gone)]) == ([], [])


def test_work_is_neither_joining_nor_leaving() -> None:
    assert changes({"CRV": "connected"}, [state("CRV", "working")]) == ([], [])
    assert changes({"CRV": "working"}, [state("CRV", "connected")]) == ([], [])


def test_ticking_ends_with_its_block_after_a_last_tick() -> None:
    told = list[str]()
    often, before = threading.Event(), threading.active_count()

    def tick() -> None:
        told.append("tick")
        if len(told) > 3:
            often.set()

    with Ticking(tick, lambda error: told.append(str(error)), every_s=0.001):
        assert often.wait(10)
    ended = len(told)

    assert set(told) == {"tick"}
    assert ended > 3
    assert threading.active_count() == before


def test_ticking_tells_an_error_and_goes_on() -> None:
    told, ticks = list[str](), list[int]()
    often = threading.Event()

    def tick() -> None:
        ticks.append(len(ticks))
        if len(ticks) == 1:
            raise BrainUNetError("roster.json", found="a damaged list")
        if len(ticks) == 2:
            raise ValueError("of a programmer")
        if len(ticks) > 4:
            often.set()

    with Ticking(tick, lambda error: told.append(str(error)), every_s=0.001):
        assert often.wait(10)

    assert told == ["roster.json: a damaged list.", "of a programmer"]


def test_the_last_tick_comes_also_when_the_block_ends_with_an_error() -> None:
    ticks = list[int]()

    with pytest.raises(KeyboardInterrupt), Ticking(lambda: ticks.append(1), lambda error: None, every_s=1000):
        raise KeyboardInterrupt

    assert ticks == [1]
