"""Cut power and full disks cost a chain nothing that was told to be written."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from brainunet.chain import Entry, Verified, append, entries, head, verify
from brainunet.errors import BrainUNetError
from tests.support.chains import chain_of
from tests.support.rights import full_disk, largest_file, open_folder, ordinary_rights


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.mark.parametrize("whole", [0, 2])
@pytest.mark.parametrize(
    "cut",
    [
        lambda line: line[: len(line) // 2],
        lambda line: line[:-1],
        lambda line: line[:1],
        lambda line: bytes(50),
        lambda line: bytes(5000),
        lambda line: bytes(50) + line[50:],
        lambda line: b"\n",
        lambda line: b'{"n":3\r\r',
    ],
    ids=["half", "no newline", "one byte", "zeros", "many zeros", "zeros, then its end", "an empty line", "other line ends"],
)
def test_a_line_that_was_cut_short_is_kept_beside_and_told_of(path: Path, whole: int, cut: Any) -> None:
    lines = chain_of(path, whole + 1)
    torn = cut(lines[-1])
    path.write_bytes(b"".join(lines[:-1]) + torn)
    sha256 = hashlib.sha256(torn).hexdigest()
    assert verify(path).torn
    assert [entry.number for entry in entries(path)] == list(range(1, whole + 1))
    assert getattr(head(path), "number", 0) == whole

    added = append(path, "run-resumed", {})

    told = list(entries(path))[whole:]
    assert [(entry.number, entry.kind) for entry in told] == [(whole + 1, "torn"), (whole + 2, "run-resumed")]
    assert told[0].data == {"sha256": sha256, "bytes": len(torn)}
    assert told[1] == added
    kept = path.with_name(f"audit.jsonl.torn-{sha256[:8]}")
    assert kept.read_bytes() == torn
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert verify(path) == Verified(entries=whole + 2, head=added.digest, torn=False)
    assert sorted(path.parent.iterdir()) == [path, kept]


def test_a_writer_killed_at_any_byte_loses_at_most_what_it_was_writing(path: Path) -> None:
    lines = chain_of(path, 3)
    content = path.read_bytes()
    for size in range(len(lines[0]) + len(lines[1]), len(content), 5):
        path.write_bytes(content[:size])

        append(path, "next", {})

        kinds = [entry.kind for entry in entries(path)]
        assert kinds[:2] == ["round-done", "round-done"]
        assert kinds[2:] in (["next"], ["torn", "next"])


@pytest.mark.parametrize("torn", [b"", bytes(20)])
def test_on_a_full_disk_the_file_stays_as_it_was(path: Path, torn: bytes) -> None:
    chain_of(path, 3)
    size = 1 + path.stat().st_size // 1024
    with path.open("ab") as file:
        file.write(torn)
    before = path.read_bytes()

    with largest_file(size), pytest.raises(BrainUNetError, match=r"audit.jsonl: it can't be written: File too large\. Check"):
        append(path, "long", {"text": "x" * 2000})

    assert path.read_bytes() == before
    assert append(path, "short", {}).number == (5 if torn else 4)
    assert verify(path).torn is False


def test_on_a_small_disk_entries_fit_or_leave_no_trace() -> None:
    with full_disk(64) as folder:
        path = folder / "audit.jsonl"
        added = list[Entry]()

        def fill() -> None:
            while True:
                added.append(append(path, "some", {"text": "x" * 3000}))

        with pytest.raises(BrainUNetError, match="No space left on device"):
            fill()

        assert len(added) > 3
        assert list(entries(path)) == added
        assert not verify(path).torn


def test_an_entry_that_does_not_reach_the_disk_is_not_left_in_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain_of(path, 2)
    before = path.read_bytes()

    def broken_disk(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken_disk)
        with pytest.raises(BrainUNetError, match="Input/output error"):
            append(path, "next", {})

    assert path.read_bytes() == before


def test_a_disk_that_takes_little_at_a_time_gets_the_whole_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, content, at: write(descriptor, content[:7], at))

    chain_of(path, 2)

    assert verify(path).entries == 2


def test_a_folder_that_is_missing_or_closed_is_said(tmp_path: Path) -> None:
    with pytest.raises(BrainUNetError, match="it can't be written: No such file or directory"):
        append(tmp_path / "nowhere" / "audit.jsonl", "first", {})
    with pytest.raises(BrainUNetError, match=r"it can't be (read|written): Is a directory"):
        list(entries(tmp_path))
    with open_folder() as folder:
        path = folder / "audit.jsonl"
        append(path, "first", {})
        path.chmod(0)
        with ordinary_rights():
            with pytest.raises(BrainUNetError, match="it can't be written: Permission denied"):
                append(path, "next", {})
            with pytest.raises(BrainUNetError, match="it can't be read: Permission denied"):
                verify(path)
