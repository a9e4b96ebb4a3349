"""A moment is local with its distance from UTC for people, and UTC for programs, on every screen alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from brainunet import chain
from brainunet.chain import JSON, Entry
from brainunet.moments import day, iso, local
from brainunet_client.ledger import sentence
from brainunet_server.federation import Folder
from brainunet_server.screens import entry_facts, entry_line, status_lines
from tests.support.federation import STATUS
from tests.support.zones import LAGOS, machine_in

LATE = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)  # in Lagos it is the next day
ENTRY = Entry(7, LATE, "site-revoked", {"site": "north"}, "0" * 64, "f" * 64)


@pytest.fixture(autouse=True)
def _in_lagos() -> Iterator[None]:
    with machine_in(LAGOS):
        yield


def test_people_read_their_own_time_with_its_distance_from_utc() -> None:
    assert local(LATE) == "2026-03-02 00:30:00+01:00"
    assert local(LATE, seconds=False) == "2026-03-02 00:30+01:00"
    assert day(LATE) == "2026-03-02"


def test_programs_read_utc_whatever_zone_the_moment_came_with() -> None:
    assert iso(LATE) == iso(LATE.astimezone()) == "2026-03-01T23:30:00Z"
    assert iso(LATE + timedelta(milliseconds=250)) == "2026-03-01T23:30:00.250Z"
    assert datetime.fromisoformat(iso(LATE)) == LATE


def test_audit_and_ledger_and_status_agree() -> None:
    assert entry_line(ENTRY).startswith("    7  2026-03-02 00:30:00+01:00  site-revoked")
    assert sentence(ENTRY).startswith("    7  2026-03-02 00:30:00+01:00  ")
    assert entry_facts(ENTRY)["at"] == "2026-03-01T23:30:00.000Z"
    said = status_lines(Folder(Path("fed")), STATUS.model_copy(update={"updated_at": LATE}), None, LATE)
    assert "last heard of on 2026-03-02 00:30:00+01:00, 0 s ago" in said[0]


def test_the_change_of_a_register_is_kept_in_utc_and_told_in_local_time(tmp_path: Path) -> None:
    for told, said in (("2026-03-01T23:30:00+00:00", "2026-03-02 00:30:00+01:00"), ("once", "once")):
        facts: dict[str, JSON] = {"listed": 1, "excluded": 1, "file_changed_at": told}
        entry = chain.append(tmp_path / "ledger.jsonl", "consent-changed", facts)

        assert entry.data["file_changed_at"] == told
        assert f"register changed at {said}" in sentence(entry)
