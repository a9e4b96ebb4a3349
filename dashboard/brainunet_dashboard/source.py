"""What the pages show: a store, and the folder beside it where the audit trail and the published models lie."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

STORE: Final = "store.sqlite"
MAX_BYTES: Final = 4_000_000  # of a settings file


@dataclass(frozen=True)
class Source:
    """Where everything is read from.

    Attributes:
        database: path or URL of the store.
        folder: of the federation or simulation, None if only its database was named.
        refresh_s: how often an open page looks for what is new.
        needs_login: whether a person has to log in first, with Streamlit's own login.
        allowed: who may then come in: addresses, or "@example.org" for all of a domain.
        takes_unverified: also if the login doesn't say that it has verified the address.
        waits: for a run that is about to begin where nothing is yet.
    """

    database: str | Path
    folder: Path | None = None
    refresh_s: float = 10.0
    needs_login: bool = False
    allowed: tuple[str, ...] = ()
    takes_unverified: bool = False
    waits: bool = False

    @property
    def audit(self) -> Path | None:
        return self.folder and self.folder / "audit.jsonl"

    @property
    def status(self) -> Path | None:
        return self.folder and self.folder / "status.json"

    @property
    def name(self) -> str:
        """How commands name the folder; DIR where it is not known."""
        return str(self.folder) if self.folder else "DIR"


def where_to_look(directory: str, database: str | None = None) -> tuple[str | Path, Path | None]:
    """Store and folder of what a person named: a folder, a file of SQLite, a URL, or a folder and the store that belongs to it.

    Nothing needs to be there yet. A folder's store is the one asked for, else the one with which the run in progress was begun,
    else the one of its settings, else ``store.sqlite`` in it.

    >>> where_to_look("postgresql://fl@db.example/fl")
    ('postgresql://fl@db.example/fl', None)
    """
    if "://" in directory:
        return database or directory, None
    path = Path(directory)
    if path.is_file():
        return database or path, None
    return database or _begun_with(path) or _set_for(path) or path / STORE, path


def _begun_with(folder: Path) -> str | None:
    run, simulation = _json(folder / "run.json"), _json(folder / "config.json")
    said = run.get("said")
    found = said.get("database") if isinstance(said, dict) else simulation.get("database")
    return found if isinstance(found, str) and found else None


def _set_for(folder: Path) -> str | None:
    try:
        found = tomllib.loads(_text(folder / "federation.toml")).get("database")
    except tomllib.TOMLDecodeError:  # flower-server says what is wrong with it; the store may be where it always was
        return None
    return found if isinstance(found, str) and found else None


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _text(path: Path) -> str:
    """What a file says; nothing of one that can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""
