"""Before the pages are opened: whether there is a store where somebody said, or may yet be one.

A place that is wrong is refused on the spot: pages that wait for ever for a misspelt folder would look like a federation that
does not begin. A store that is to come, away, locked or of another version is said to be so, and the pages wait for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from brainunet.errors import BrainUNetError, ConfigError
from brainunet_dashboard.source import Source
from brainunet_server.store.reader import StoreReader, address

WAIT_S: Final = 2.0  # for a lock
BEGINNINGS: Final = ("federation.toml", "run.json", "config.json")  # in a folder of which a run may yet make a store


def first_look(source: Source) -> str:
    """What is wrong with the store now, in a sentence; empty if nothing is.

    Raises:
        ConfigError: no store there, and nothing that would make one; or no address of one.
    """
    if is_awaited(source):
        return f"No run has begun at {source.folder or source.database} yet."
    missing = _missing(source)
    if missing is not None:
        raise _nothing_there(source, missing)
    try:
        StoreReader(source.database, wait_s=WAIT_S).close()
    except BrainUNetError as error:
        return str(error)
    return ""


def is_awaited(source: Source) -> bool:
    """Whether nothing is there, and may be for a while: a run would make it."""
    is_beginning = source.folder is not None and any((source.folder / name).is_file() for name in BEGINNINGS)
    return (source.waits or is_beginning) and _missing(source) is not None


def _missing(source: Source) -> Path | None:
    """The file of SQLite that is not there."""
    url = address(source.database)
    file = Path(url.database or "")
    return file if url.drivername == "sqlite" and not file.exists() else None


def _nothing_there(source: Source, store: Path) -> ConfigError:
    named = source.folder.absolute() if source.folder else store
    if named.is_dir():
        found = f"no {store.name} in it, and no federation or simulation that would make one"
    else:
        found = "no such file or folder"
    remedy = "mend the path; --wait opens the pages all the same, for a run that is about to begin there"
    return ConfigError(str(named), found=found, expected="a federation's or a simulation's folder, or its store", remedy=remedy)
