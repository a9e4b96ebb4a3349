"""Database errors that a person can act on, in words; every other one is a bug and passes as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple
from urllib.parse import unquote

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from brainunet.errors import BrainUNetError, ConfigError


class Problem(NamedTuple):
    kind: type[BrainUNetError]
    found: str
    remedy: str


_LOCKED = Problem(BrainUNetError, "locked by another program", "end the other one, or a backup that holds the store, and retry")
_FULL = Problem(BrainUNetError, "no space left on the disk", "make room and resume the run: no finished round is lost")
_OTHER_TABLES = Problem(
    ConfigError, "other tables than its version has", "put a backup in its place, or give the run a new store"
)
_GONE = Problem(BrainUNetError, "the server ended the session", "see that it runs, and resume the run")

# By SQLite's primary result codes, https://sqlite.org/rescode.html
SQLITE: Final[Mapping[int, Problem]] = {
    5: _LOCKED,
    6: _LOCKED,
    8: Problem(ConfigError, "not writable", "let this user write the file and its folder (SQLite puts two more beside it)"),
    10: Problem(BrainUNetError, "the disk failed to read or write", "look at the disk; keep the store on a local one"),
    11: Problem(ConfigError, "a damaged database", "put a backup in its place, or give the run a new store"),
    13: _FULL,
    14: Problem(
        ConfigError,
        "cannot be opened",
        "make its folder, and let this user write there, readers too (SQLite puts two more files beside it)",
    ),
    26: Problem(ConfigError, "not a SQLite database", "give the store a path of its own"),
}

# By PostgreSQL's SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
POSTGRESQL: Final[Mapping[str, Problem]] = {
    "25006": Problem(ConfigError, "a server that is read-only", "give the address of the primary server"),
    "42703": _OTHER_TABLES,  # no such column
    "42P01": _OTHER_TABLES,  # no such table
    "42501": Problem(ConfigError, "this user may not do that", "grant the user CREATE on the schema (a reader: SELECT)"),
    "53100": _FULL,
    "53300": Problem(BrainUNetError, "the server has too many connections", "retry later, or raise max_connections"),
    "55P03": _LOCKED,
    "57P01": _GONE,
    "57P02": _GONE,
    "57P03": Problem(BrainUNetError, "the server is starting or stopping", "see that it runs, and resume the run"),
}


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turn what the database raises inside into an error that says what to do.

    Raises:
        BrainUNetError: one of the problems above, or a server that does not answer.
    """
    try:
        yield
    except DBAPIError as error:
        problem = _problem(error)
        if problem is None:
            raise
        raise problem.kind(shown(url), found=problem.found, remedy=problem.remedy) from None


def is_lost(error: DBAPIError) -> bool:
    """Whether the server could not be reached or went away, so that the same may succeed when it is back."""
    if getattr(error.orig, "sqlite_errorcode", None) is not None:
        return False  # a file has no connection to lose, and waits for its lock by itself
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state in ("57P01", "57P02", "57P03") or state.startswith("08")
    return error.connection_invalidated or _without_state(error)


def shown(url: URL) -> str:
    """The address as messages show it: the file's path, or the server's without password and options.

    >>> from sqlalchemy import make_url
    >>> shown(make_url("postgresql+psycopg://fl:secret@db.example/federation?password=secret"))
    'postgresql+psycopg://fl@db.example/federation'
    """
    if url.drivername == "sqlite":
        return unquote((url.database or "").removeprefix("file:")) if "uri" in url.query else url.database or ""
    return URL.create(url.drivername, url.username, None, url.host, url.port, url.database).render_as_string()


def _problem(error: DBAPIError) -> Problem | None:
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code == 1 and str(error.orig).startswith("no such "):  # SQLite's number for whatever is wrong with a statement
        return _OTHER_TABLES
    if sqlite_code is not None:
        return SQLITE.get(sqlite_code & 0xFF)  # the low byte; the rest tells variants apart
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return POSTGRESQL.get(state)
    if _without_state(error):
        words = " ".join(str(error.orig).split())
        return Problem(BrainUNetError, f"no connection ({words})", "check host, port, user and password, and that it runs")
    return None


def _without_state(error: DBAPIError) -> bool:
    # psycopg has no state for what goes wrong before or under a session (no server, wrong password, lost connection)
    kinds = type(error.orig).__mro__
    return any(kind.__module__.startswith("psycopg") and kind.__name__ == "OperationalError" for kind in kinds)
