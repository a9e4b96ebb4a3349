"""A chain with a few entries in it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from brainunet.chain import append

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


def chain_of(path: Path, count: int) -> list[bytes]:
    """A chain of so many entries, and its lines."""
    for number in range(1, count + 1):
        append(path, "round-done", {"round": number, "sites": ["Ulm", "Köln"]}, at=AT)
    return path.read_bytes().splitlines(keepends=True)
