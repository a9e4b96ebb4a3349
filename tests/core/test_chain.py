"""A chain takes entries from many processes, gives them back, and shows every change."""

from __future__ import annotations

import hashlib
import json
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainunet.chain import MAX_LINE_BYTES, Verified, append, entries, head, verify
from brainunet.errors import ChainBroken
from tests.support.cases import assert_helps
from tests.support.chains import AT, chain_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


# --- there and back ---------------------------------------------------------------------------------------------------------


def test_an_entry_comes_back_as_it_was_appended(path: Path) -> None:
    first = append(path, "site-enrolled", {"site": "charite", "cases": 12}, at=AT)
    second = append(path, "run-started", {}, at=AT)

    assert list(entries(path)) == [first, second]
    assert head(path) == second
    assert (first.number, first.kind, first.data) == (1, "site-enrolled", {"site": "charite", "cases": 12})
    assert (first.previous, second.previous) == ("0" * 64, first.digest)
    assert first.at == AT.replace(microsecond=123000)
    assert verify(path) == Verified(entries=2, head=second.digest, torn=False)


def test_a_line_can_be_checked_by_hand(path: Path) -> None:
    append(path, "site-enrolled", {"site": "charite", "at": [1, 2.5, None]}, at=AT)
    line = path.read_text()
    told = json.loads(line)
    digest = told.pop("hash")

    assert list(told) == ["n", "at", "kind", "data", "prev"]
    assert digest == hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert line.startswith('{"n":1,"at":"2026-03-01T12:30:15.123Z","kind":"site-enrolled","data":{"at":[1,2.5,null],"site":')


@settings(max_examples=40)  # each waits for the disk
@given(kept=st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=4))
def test_any_data_that_json_can_hold_comes_back(kept: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("chain") / "chain"

    appended = [append(path, "any", data) for data in kept]

    assert list(entries(path)) == appended
    assert [dict(entry.data) for entry in appended] == kept
    assert verify(path).entries == len(kept)


def test_a_time_of_another_zone_is_kept_in_utc_and_now_is_meant_where_none_is_given(path: Path) -> None:
    there = append(path, "first", {}, at=AT.astimezone(timezone(timedelta(hours=-5))))
    now = append(path, "second", {})

    assert there.at == AT.replace(microsecond=123000)
    assert there.at.tzinfo is UTC
    assert abs((datetime.now(UTC) - now.at).total_seconds()) < 60


def test_a_missing_or_empty_file_is_a_chain_of_no_entries(path: Path) -> None:
    for _ in range(2):
        assert list(entries(path)) == []
        assert head(path) is None
        assert verify(path) == Verified(entries=0, head=None, torn=False)
        path.touch()

    assert append(path, "first", {}).number == 1


def test_only_the_owner_may_read_a_chain(path: Path) -> None:
    append(path, "first", {})

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_appending_looks_at_the_last_lines_alone(path: Path) -> None:
    lines = chain_of(path, 2)
    long = append(path, "long", {"text": "x" * (MAX_LINE_BYTES - 300)})
    path.write_bytes(lines[0].replace(b"Ulm", b"Bonn") + path.read_bytes()[len(lines[0]) :])

    assert head(path) == long
    assert append(path, "next", {}).previous == long.digest
    with pytest.raises(ChainBroken):
        verify(path)


# --- what can't be an entry -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "Run", "run started", "1st", "-", "run\n", "ü"])
def test_a_kind_is_lower_case_words_and_dashes(path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match="no kind of entry"):
        append(path, kind, {})

    assert not path.exists()


DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "data",
    [{"a": float("nan")}, {"a": float("inf")}, {"a": {1, 2}}, {"a": b"x"}, {1: 2, "1": 3}, [1], "text", {"a": DEEP}],
    ids=["NaN", "infinity", "a set", "bytes", "keys of two kinds", "a list", "a text", "too deep"],
)
def test_data_that_json_cannot_give_back_are_refused(path: Path, data: Any) -> None:
    with pytest.raises(ValueError, match=r"data|JSON"):
        append(path, "run-started", data)

    assert not path.exists()


def test_an_entry_takes_at_most_64_kib(path: Path) -> None:
    size = len(chain_of(path, 1)[0]) - len('"round":1,"sites":["Ulm","K\\u00f6ln"]')
    room = MAX_LINE_BYTES - size - len('"x":""')

    append(path, "round-done", {"x": "y" * room}, at=AT)
    with pytest.raises(ValueError, match="65537 bytes; 65536 are allowed"):
        append(path, "round-done", {"x": "y" * (room + 1)}, at=AT)

    assert verify(path).entries == 2


def test_a_time_without_its_zone_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="zone"):
        append(path, "first", {}, at=AT.replace(tzinfo=None))


# --- changes are seen -------------------------------------------------------------------------------------------------------


def is_seen(path: Path, whole: Verified) -> bool:
    try:
        return verify(path) != whole
    except ChainBroken:
        return True


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Verified]:
    """A chain of three entries: its file, what is in it, and what is found when nothing has changed."""
    path = tmp_path_factory.mktemp("chain") / "audit.jsonl"
    chain_of(path, 3)
    return path, path.read_bytes(), verify(path)


@given(data=st.data())
def test_any_change_of_any_byte_is_seen(data: st.DataObject, three: tuple[Path, bytes, Verified]) -> None:
    path, content, whole = three
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))

    path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])

    assert is_seen(path, whole)


@given(data=st.data())
def test_any_bytes_put_in_or_left_out_are_seen(data: st.DataObject, three: tuple[Path, bytes, Verified]) -> None:
    path, content, whole = three
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, len(content)))
    put_in = data.draw(st.binary(max_size=3) | st.sampled_from([b" ", b"\n", b"\r", b"0", content[:start], content[stop:]]))
    changed = content[:start] + put_in + content[stop:]

    path.write_bytes(changed)

    assert changed == content or is_seen(path, whole)


def rewritten(line: bytes, **fields: Any) -> bytes:
    """A line with other fields whose own digest is right."""
    told = json.loads(line) | fields
    del told["hash"]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return json.dumps(told | {"hash": digest}, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize(
    ("change", "line", "found", "expected"),
    [
        (lambda a, b, c: [b, c], 1, "entry 2 after ", "entry 1 after 0000"),
        (lambda a, b, c: [a, c], 2, "entry 3 after ", "entry 2 after "),
        (lambda a, b, c: [a, c, b], 2, "entry 3 after ", "entry 2 after "),
        (lambda a, b, c: [a, b, b, c], 3, "entry 2 after ", "entry 3 after "),
        (lambda a, b, c: [a, b[: len(b) // 2] + b"\n", c], 2, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, b"\n", b, c], 2, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, b.replace(b"Ulm", b"Bonn"), c], 2, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, rewritten(b, n=5), c], 2, "entry 5 after ", "entry 2 after "),
        (lambda a, b, c: [a, rewritten(b, data={}), c], 3, "entry 3 after ", "entry 3 after "),
        (lambda a, b, c: [rewritten(a, n=True), b, c], 1, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, b, rewritten(c, kind="Ünknown")], 3, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, b, rewritten(c, data=[])], 3, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, b, rewritten(c, at=7)], 3, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, b, rewritten(c, at="2026-03-01T12:30:15+00:00")], 3, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, b, rewritten(c, note="more")], 3, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, b, b"[]\n"], 3, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, b, b"x" * (MAX_LINE_BYTES + 1)], 3, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, b"[" * 50_000 + b"\n", c], 2, "not an entry", "an unchanged entry"),
        (lambda a, b, c: [a, b'{"n":' + b"9" * 5000 + b"}\n", c], 2, "not an entry", "an unchanged entry"),
    ],
)  # fmt: skip
def test_a_broken_chain_names_the_line(path: Path, change: Any, line: int, found: str, expected: str) -> None:
    path.write_bytes(b"".join(change(*chain_of(path, 3))))

    with pytest.raises(ChainBroken) as raised:
        verify(path)

    assert_helps(raised.value, where=f"audit.jsonl line {line}", found=found, exit_code=1)
    assert expected in raised.value.expected


def test_entries_before_a_broken_line_are_still_read(path: Path) -> None:
    first, second, third = chain_of(path, 3)
    path.write_bytes(first + second + third.replace(b"Ulm", b"Bonn"))
    reading = entries(path)

    assert [next(reading).number, next(reading).number] == [1, 2]
    with pytest.raises(ChainBroken):
        next(reading)


def test_nothing_is_appended_to_a_last_line_that_was_changed(path: Path) -> None:
    first, second = chain_of(path, 2)
    for last in (second.replace(b"Ulm", b"Bonn"), b"x" * (MAX_LINE_BYTES + 1), b"7\n"):
        path.write_bytes(first + last)
        before = path.read_bytes()

        with pytest.raises(ChainBroken) as raised:
            append(path, "next", {})
        assert_helps(raised.value, where="audit.jsonl, its last line", found="not an entry", exit_code=1)
        with pytest.raises(ChainBroken):
            head(path)

        assert path.read_bytes() == before


def test_lines_cut_off_the_end_are_seen_by_who_knows_a_digest(path: Path) -> None:
    lines = chain_of(path, 3)
    digests = [entry.digest for entry in entries(path)]
    assert [verify(path, digest).entries for digest in digests] == [3, 3, 3]

    path.write_bytes(b"".join(lines[:2]))

    assert verify(path, digests[1]).entries == 2
    with pytest.raises(ChainBroken) as raised:
        verify(path, digests[2])
    assert_helps(raised.value, where="audit.jsonl", found="2 entries, none of them with the digest", exit_code=1)
    path.unlink()
    with pytest.raises(ChainBroken):
        verify(path, digests[0])


# --- many at once -----------------------------------------------------------------------------------------------------------


def test_processes_that_append_at_once_make_one_chain(path: Path) -> None:
    chain_of(path, 1)
    with path.open("ab") as file:
        file.write(b'{"n":2,"at')
    code = (
        "import sys; from pathlib import Path; from brainunet.chain import append\n"
        "for number in range(25): append(Path(sys.argv[1]), 'some', {'who': sys.argv[2], 'number': number})"
    )

    writers = [subprocess.Popen([sys.executable, "-c", code, path, who]) for who in "abc"]
    while any(writer.poll() is None for writer in writers):
        verify(path)  # a reader in between finds no fault either

    assert [writer.returncode for writer in writers] == [0, 0, 0]
    told = list(entries(path))
    assert len(told) == 1 + 1 + 3 * 25
    assert [entry.kind for entry in told].count("torn") == 1
    for who in "abc":
        assert [entry.data["number"] for entry in told if entry.data.get("who") == who] == list(range(25))


def test_threads_that_append_at_once_make_one_chain(path: Path) -> None:
    def write(who: int) -> None:
        for number in range(20):
            append(path, "some", {"who": who, "number": number})

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert verify(path).entries == 80


def test_a_reader_sees_the_chain_as_it_was_when_it_began(path: Path) -> None:
    chain_of(path, 2)
    reading = entries(path)
    first = next(reading)

    append(path, "next", {})

    assert [first.number, *(entry.number for entry in reading)] == [1, 2]
