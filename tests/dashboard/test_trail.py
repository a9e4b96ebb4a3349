"""The audit trail: found, filtered, and given out so that a spreadsheet runs nothing of it."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from brainunet.chain import append, entries
from brainunet.errors import ChainBroken
from brainunet_dashboard.trail import Wanted, as_csv, as_json, row_of, search


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    append(path, "site-enrolled", {"site": "CRV", "public_key_id": "a" * 64})
    append(path, "reply-refused", {"site": "Lagos", "round": 3, "run": "r", "reason": "=cmd|' /C calc'!A0"})
    append(path, "site-revoked", {"site": "CRV", "reason": "@left"})
    return path


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Wanted(), [3, 2, 1]),
        (Wanted("LAGOS"), [2]),
        (Wanted("crv revoked"), [3]),
        (Wanted(kinds=("site-enrolled", "site-revoked")), [3, 1]),
        (Wanted(site="CRV"), [3, 1]),
        (Wanted("left", ("site-revoked",), "CRV"), [3]),
        (Wanted("nobody"), []),
    ],
)
def test_search_by_words_kinds_and_site(audit: Path, wanted: Wanted, numbers: list[int]) -> None:
    found = search(audit, wanted)

    assert [entry.number for entry in found.entries] == numbers
    assert (found.matches, found.total) == (len(numbers), 3)
    assert found.sites == ["CRV", "Lagos"]


def test_only_the_latest_are_kept_and_all_are_counted(audit: Path) -> None:
    found = search(audit, Wanted(), most=2)

    assert ([entry.number for entry in found.entries], found.matches) == ([3, 2], 3)


def test_a_missing_trail_has_no_entries(tmp_path: Path) -> None:
    assert search(tmp_path / "none.jsonl", Wanted()).total == 0


def test_the_json_is_what_the_file_holds(audit: Path) -> None:
    told = json.loads(as_json(audit, Wanted()))

    assert told == [json.loads(line) for line in audit.read_text().splitlines()]
    assert [entry["n"] for entry in json.loads(as_json(audit, Wanted("lagos")))] == [2]


def test_a_moment_of_a_whole_second_keeps_its_milliseconds_which_the_digest_is_over(tmp_path: Path) -> None:
    append(tmp_path / "a.jsonl", "site-joined", {"site": "CRV"}, at=datetime(2026, 3, 1, 12, tzinfo=UTC))

    assert json.loads(as_json(tmp_path / "a.jsonl", Wanted()))[0]["at"] == "2026-03-01T12:00:00.000Z"


def test_no_cell_of_the_csv_begins_as_a_formula(audit: Path) -> None:
    append(audit, "site-enrolled", {"site": "+1+1"})
    rows = list(csv.reader(io.StringIO(as_csv(audit, Wanted()))))

    assert rows[0] == ["n", "at", "kind", "site", "run", "round", "data", "hash"]
    assert len(rows) == 5
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]
    assert rows[4][3] == "'+1+1"
    assert json.loads(rows[2][6])["reason"] == "=cmd|' /C calc'!A0"


def test_a_broken_chain_is_shown_up_to_the_damage_and_never_exported(audit: Path) -> None:
    audit.write_text(audit.read_text().replace("Lagos", "Accra"))

    found = search(audit, Wanted())
    assert [entry.number for entry in found.entries] == [1]
    assert "line 2" in found.problem
    with pytest.raises(ChainBroken):
        as_csv(audit, Wanted())


def test_a_row_names_what_happened_and_shortens_digests(audit: Path) -> None:
    first = row_of(next(entries(audit)))

    assert (first["kind"], first["site"], first["facts"]) == ("site-enrolled", "CRV", f"public_key_id {'a' * 16}…")
