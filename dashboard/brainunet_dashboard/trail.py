"""The coordinator's audit trail: searched, checked and given out as CSV and JSON; each entry is checked when it is read."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from brainunet import chain
from brainunet.chain import Entry
from brainunet.errors import BrainUNetError
from brainunet_dashboard.words import in_spreadsheet

MOST_SHOWN: Final = 1000


@dataclass(frozen=True)
class Wanted:
    """Which entries are looked for; empty is any. ``words`` are looked for in all of an entry, in any letter case."""

    words: str = ""
    kinds: tuple[str, ...] = ()
    site: str = ""


@dataclass(frozen=True)
class Found:
    """The last entries that are wanted, the latest first, of ``matches``; and why reading ended early, if it did."""

    entries: Sequence[Entry]
    matches: int
    total: int
    kinds: Sequence[str]
    sites: Sequence[str]
    problem: str = ""


def search(path: Path, wanted: Wanted, most: int = MOST_SHOWN) -> Found:
    """Look through the whole trail; what comes after a damaged line is not shown, for nothing there is certain."""
    kept: deque[Entry] = deque(maxlen=most)
    matches, total, problem = 0, 0, ""
    kinds: set[str] = set()
    sites: set[str] = set()
    try:
        for entry in chain.entries(path):
            total += 1
            kinds.add(entry.kind)
            if isinstance(site := entry.data.get("site"), str):
                sites.add(site)
            if is_wanted(entry, wanted):
                matches += 1
                kept.append(entry)
    except BrainUNetError as error:
        problem = str(error)
    return Found(list(reversed(kept)), matches, total, sorted(kinds), sorted(sites), problem)


def is_wanted(entry: Entry, wanted: Wanted) -> bool:
    if wanted.kinds and entry.kind not in wanted.kinds:
        return False
    if wanted.site and entry.data.get("site") != wanted.site:
        return False
    if not wanted.words:
        return True
    text = f"{entry.kind} {_at(entry)} {json.dumps(entry.data, ensure_ascii=False)} {entry.digest}".casefold()
    return all(word in text for word in wanted.words.casefold().split())


def row_of(entry: Entry) -> dict[str, Any]:
    """An entry for a table."""
    more = {name: value for name, value in entry.data.items() if name not in ("site", "run", "round")}
    return {
        "n": entry.number,
        "at": entry.at,
        "kind": entry.kind,
        "site": entry.data.get("site"),
        "round": entry.data.get("round"),
        "facts": ", ".join(f"{name} {_short(value)}" for name, value in more.items()),
        "run": entry.data.get("run"),
        "digest": entry.digest,
    }


def as_json(path: Path, wanted: Wanted) -> str:
    """Every entry that is wanted as the file holds it, in a list, the oldest first.

    Raises:
        BrainUNetError: the trail is damaged or can't be read.
    """
    facts = [
        {"n": e.number, "at": _at(e), "kind": e.kind, "data": dict(e.data), "prev": e.previous, "hash": e.digest}
        for e in _all(path, wanted)
    ]
    return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"


def as_csv(path: Path, wanted: Wanted) -> str:
    """The same for a spreadsheet; what it would take for a formula gets an apostrophe in front.

    Raises:
        BrainUNetError: the trail is damaged or can't be read.
    """
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["n", "at", "kind", "site", "run", "round", "data", "hash"])
    for e in _all(path, wanted):
        told = [e.data.get(name, "") for name in ("site", "run", "round")]
        rows.writerow(
            [
                in_spreadsheet(str(v))
                for v in (e.number, _at(e), e.kind, *told, json.dumps(dict(e.data), ensure_ascii=False), e.digest)
            ]
        )
    return out.getvalue()


def _all(path: Path, wanted: Wanted) -> Iterator[Entry]:
    return (entry for entry in chain.entries(path) if is_wanted(entry, wanted))


def _at(entry: Entry) -> str:
    """As the chain spells it, with its milliseconds: the digest is over that."""
    return entry.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _short(value: object) -> str:
    """
    >>> _short(1.8457482735507518), _short("x" * 60)
    ('1.846', 'xxxxxxxxxxxxxxxx…')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 48 else f"{text[:16]}…"
