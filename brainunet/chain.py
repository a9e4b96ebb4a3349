"""The one append-only log: each entry holds the digest of the one before it, so that no line can be changed unseen.

One JSON object a line::

    {"n":1,"at":"2026-03-01T12:00:00.000Z","kind":"site-enrolled","data":{...},"prev":"<64 hex>","hash":"<64 hex>"}

``prev`` is the ``hash`` of the line before (64 zeros in the first), and ``hash`` the SHA-256 of the other five as JSON with
sorted keys and without spaces, so a dozen lines of any language can check a chain. Whoever can write the file can still make
a new chain from some line on, or cut whole lines off its end: only a digest that was noted elsewhere shows that.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from brainunet.errors import BrainUNetError, ChainBroken
from brainunet.files import flush_name, writing_aside

MAX_LINE_BYTES: Final = 64 * 1024
TORN: Final = "torn"  # the kind of the entry that tells of a line cut short

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

_NOTHING_BEFORE: Final = "0" * 64
_KIND: Final = re.compile("[a-z][a-z0-9-]*")
_FIELDS: Final = ["n", "at", "kind", "data", "prev", "hash"]


@dataclass(frozen=True)
class Entry:
    """One line; ``number`` counts from 1, ``at`` is UTC in whole milliseconds, ``data`` as JSON gives it back."""

    number: int
    at: datetime
    kind: str
    data: Mapping[str, Any]
    previous: str
    digest: str


@dataclass(frozen=True)
class Verified:
    """A chain without a fault: how many entries, the digest of the last (None without any), and whether a cut line follows."""

    entries: int
    head: str | None
    torn: bool


def append(path: Path, kind: str, data: Mapping[str, JSON], *, at: datetime | None = None) -> Entry:
    """Add one entry, and wait until it is on the disk; ``at`` is now, if not said. Several processes may append at once.

    A last line that a power cut left unfinished goes to ``PATH.torn-<8 hex>``, and an entry of kind "torn" with its SHA-256
    and length takes its place. The file is made (0600), its folder is not. The time of an append doesn't grow with the file.

    Raises:
        ChainBroken: the last line is not an entry of a chain.
        BrainUNetError: the disk is full or the file can't be written; it is left as it was.
        ValueError: a kind, time or data that no entry can hold, or that take more than 64 KiB.
    """
    at = at or datetime.now(UTC)
    _following(None, at, kind, data)  # what can't be an entry is refused before anything is touched
    with _opened(path, writing=True) as (descriptor, size):
        last, whole = _last_entry(path, descriptor, size)
        lines = b""
        if whole < size:
            last = _set_aside(path, os.pread(descriptor, size - whole, whole), last, at)
            lines = _line(last)
        entry = _following(last, at, kind, data)
        _write_or_restore(descriptor, whole, size, lines + _line(entry))
        if not size:
            flush_name(path)
    return entry


def entries(path: Path) -> Iterator[Entry]:
    """Every entry, each checked before it is given; none of a missing file. A last line cut short is left out.

    Raises:
        ChainBroken: a line is not what was written, or not where it was written.
        BrainUNetError: the file can't be read.
    """
    for entry in _checked(path):
        if entry is not None:
            yield entry


def head(path: Path) -> Entry | None:
    """The last whole entry, None of a missing or empty file; the lines before it are not looked at.

    Raises:
        ChainBroken: that line is not an entry of a chain.
        BrainUNetError: the file can't be read.
    """
    with _opened(path) as (descriptor, size):
        return _last_entry(path, descriptor, size)[0]


def verify(path: Path, expected_head: str | None = None) -> Verified:
    """Check every line; a missing file is a chain of no entries.

    ``expected_head`` is the digest of an entry that was noted elsewhere: one of the chain's must have it.

    Raises:
        ChainBroken: a line is not what was written or where it was written, or no entry has the expected digest.
        BrainUNetError: the file can't be read.
    """
    number, last, torn, seen = 0, None, False, expected_head is None
    for entry in _checked(path):
        if entry is None:
            torn = True
            continue
        number, last = entry.number, entry.digest
        seen = seen or last == expected_head
    if not seen:
        raise ChainBroken(
            path,
            found=f"{number} entries, none of them with the digest that was noted ({str(expected_head)[:64]})",
            expected="the entry that was last when the digest was noted",
            remedy="compare it with a copy of that day: lines were cut off, or the whole file was replaced",
        )
    return Verified(number, last, torn)


def _entry(number: int, at: datetime, kind: str, data: Mapping[str, JSON], previous: str) -> Entry:
    if not _KIND.fullmatch(kind):
        raise ValueError(f"{kind!r} is no kind of entry")
    if at.tzinfo is None:
        raise ValueError("a time without its zone")
    at = at.replace(microsecond=at.microsecond // 1000 * 1000).astimezone(UTC)
    try:
        told = json.loads(_canonical(data))  # what a reader will find: sorted, lists for tuples
    except (TypeError, RecursionError) as error:
        raise ValueError(f"data that JSON can't hold: {error}") from None
    if not isinstance(told, dict):
        raise ValueError("data that is no mapping")
    facts: dict[str, JSON] = {"n": number, "at": _spelt(at), "kind": kind, "data": told, "prev": previous}
    entry = Entry(number, at, kind, told, previous, hashlib.sha256(_canonical(facts)).hexdigest())
    if len(_line(entry)) > MAX_LINE_BYTES:
        raise ValueError(f"an entry of {len(_line(entry))} bytes; {MAX_LINE_BYTES} are allowed")
    return entry


def _canonical(value: JSON) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _spelt(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(entry: Entry) -> bytes:
    values = [entry.number, _spelt(entry.at), entry.kind, entry.data, entry.previous, entry.digest]
    return json.dumps(dict(zip(_FIELDS, values, strict=True)), separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> Entry | None:
    """The entry of a whole line, None if the line is not the one spelling of an entry."""
    try:
        told = json.loads(line)
        entry = _entry(told["n"], datetime.fromisoformat(told["at"]), told["kind"], told["data"], told["prev"])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
    return entry if _line(entry) == line and type(entry.number) is int else None  # True would pass for 1


def _is_cut(line: bytes) -> bool:
    """Whether a last line looks like one that was not written to its end."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return not line.endswith(b"\n")


def _checked(path: Path) -> Iterator[Entry | None]:
    """Every entry; None at the end stands for a line that was cut short."""
    number, previous, at = 0, _NOTHING_BEFORE, 0
    with _opened(path) as (descriptor, size):
        file = os.fdopen(descriptor, "rb", closefd=False) if size else io.BytesIO()
        while at < size:
            line = file.readline(min(MAX_LINE_BYTES + 1, size - at))
            at, number = at + len(line), number + 1
            if at == size and _is_cut(line) and len(line) <= MAX_LINE_BYTES:
                yield None
                return
            entry = _parsed(line)
            if entry is None:
                raise _broken(f"{path.name} line {number}", "not an entry as it was written")
            if (entry.number, entry.previous) != (number, previous):
                found = f"entry {entry.number} after {entry.previous}"
                raise _broken(f"{path.name} line {number}", found, f"entry {number} after {previous}")
            previous = entry.digest
            yield entry


def _last_entry(path: Path, descriptor: int, size: int) -> tuple[Entry | None, int]:
    """The last whole entry (None of an empty chain), and where it ends: before ``size`` if the last line was cut short."""
    start = max(0, size - 2 * MAX_LINE_BYTES - 1)  # room for a whole line and a cut one
    tail = os.pread(descriptor, size - start, start) if size else b""
    line = _last_line(tail)
    if line and _is_cut(line) and len(line) <= MAX_LINE_BYTES:
        tail = tail[: -len(line)]
        line = _last_line(tail)
    whole = start + len(tail)
    if not whole:
        return None, 0
    entry = _parsed(line)
    if entry is None:
        raise _broken(f"{path.name}, its last line", "not an entry as it was written")
    return entry, whole


def _last_line(tail: bytes) -> bytes:
    return tail[tail.rfind(b"\n", 0, -1) + 1 :]


def _following(last: Entry | None, at: datetime, kind: str, data: Mapping[str, JSON]) -> Entry:
    return _entry(last.number + 1, at, kind, data, last.digest) if last else _entry(1, at, kind, data, _NOTHING_BEFORE)


def _set_aside(path: Path, line: bytes, last: Entry | None, at: datetime) -> Entry:
    """Keep a cut line in a file of its own; the entry that tells of it."""
    digest = hashlib.sha256(line).hexdigest()
    with writing_aside(path.with_name(f"{path.name}.{TORN}-{digest[:8]}")) as aside:
        aside.touch(0o600, exist_ok=False)
        aside.write_bytes(line)
    return _following(last, at, TORN, {"sha256": digest, "bytes": len(line)})


def _write_or_restore(descriptor: int, start: int, size: int, lines: bytes) -> None:
    """Put ``lines`` at ``start`` of a file of ``size`` bytes, in the place of what is there; all of them or none."""
    earlier = os.pread(descriptor, size - start, start)
    try:
        _write(descriptor, start, lines)
        os.ftruncate(descriptor, start + len(lines))
        os.fsync(descriptor)
    except BaseException:
        os.ftruncate(descriptor, size)
        _write(descriptor, start, earlier)
        raise


def _write(descriptor: int, start: int, content: bytes) -> None:
    while content:
        written = os.pwrite(descriptor, content, start)
        content, start = content[written:], start + written


@contextmanager
def _opened(path: Path, *, writing: bool = False) -> Iterator[tuple[int, int]]:
    """A descriptor, and the size that the file has between two appends; (-1, 0) if there is nothing to read."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT if writing else os.O_RDONLY, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if writing else fcntl.LOCK_SH)
            size = os.fstat(descriptor).st_size
            if not writing:
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a long reading must not hold up those who write
            yield descriptor, size
        finally:
            os.close(descriptor)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not writing:
            yield -1, 0
            return
        raise BrainUNetError(
            path,
            found=f"it can't be {'written' if writing else 'read'}: {error.strerror or error}",
            remedy="check that the folder is there, that the disk has room and that you may use the file",
        ) from None


def _broken(where: str, found: str, expected: str = "an unchanged entry") -> ChainBroken:
    return ChainBroken(
        where,
        found=found,
        expected=expected,
        remedy="keep the file, compare it with an earlier copy and find out who changed it; nothing from there on is certain",
    )
