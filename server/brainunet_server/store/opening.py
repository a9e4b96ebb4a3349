"""From what a person writes (a path or a URL) to an engine with up-to-date tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from brainunet.errors import ConfigError
from brainunet_server.store.problems import explained, shown
from brainunet_server.store.schema import require_current, upgrade

WAIT_S: Final = 10.0  # for another writer's transaction; ours take milliseconds
# How PostgreSQL's own library notices that the machine at the other end is gone (a cut line, no power): by itself it would
# wait for its answer for hours.
PATIENCE: Final = MappingProxyType(
    {
        "connect_timeout": "10",  # s
        "keepalives_idle": "20",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "tcp_user_timeout": "30000",  # ms
    }
)
EXPECTED: Final = "a path, sqlite:///path or postgresql+psycopg://user@host/database"


def open_for_writing(where: str | Path, *, wait_s: float = WAIT_S) -> Engine:
    """An engine whose tables are made or updated first.

    Raises:
        ConfigError: the address, the database behind it or its tables do not fit.
        BrainUNetError: it cannot be reached, written or locked right now.
    """
    url = address(where)
    engine = _sqlite_writer(url, wait_s) if _is_sqlite(url) else _postgresql(url, wait_s)
    return _checked(engine, upgrade)


def without_password(where: str | Path) -> str:
    """The address as it may be written down: a SQLite file by its absolute path, a URL without any password.

    >>> without_password("postgresql://fl:secret@db.example/federation?password=secret")
    'postgresql+psycopg://fl@db.example/federation'

    Raises:
        ConfigError: not an address of a store.
    """
    url = address(where)
    query = {name: value for name, value in url.query.items() if "password" not in name.lower()}
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, query)
    return bare.render_as_string(hide_password=False)


def open_for_reading(where: str | Path, *, wait_s: float = WAIT_S) -> Engine:
    """An engine that cannot write and changes nothing: tables that are missing, older or newer are refused.

    Raises:
        ConfigError: the address, the database behind it or its tables do not fit.
        BrainUNetError: it cannot be reached or read right now.
    """
    url = address(where)
    if not _is_sqlite(url):
        return _checked(_postgresql(url, wait_s, "SET default_transaction_read_only = on"), require_current)
    if not Path(url.database or "").exists():
        raise ConfigError(
            shown(url),
            found="no such file",
            expected="the store of a run",
            remedy="start a run there first, or mend the path",
        )
    return _checked(_sqlite_reader(url, wait_s), require_current)


def address(where: str | Path) -> URL:
    """The database that a path or URL names; a SQLite file's path becomes absolute.

    >>> address("postgresql://fl@db.example/federation").drivername
    'postgresql+psycopg'

    Raises:
        ConfigError: neither a path nor a URL of a database that the store works with. Never repeats the URL: it may
            hold a password.
    """
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).expanduser().absolute()))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        remedy = "write special characters of a password as %XX (@ is %40)"
        raise ConfigError("store", found="a URL that does not parse", expected=EXPECTED, remedy=remedy) from None
    match url.drivername:
        case "postgresql" | "postgresql+psycopg":
            return url.set(drivername="postgresql+psycopg")
        case "sqlite" if url.database and url.database != ":memory:" and not url.query:
            return address(Path(url.database))
        case "sqlite":
            raise ConfigError("store", found="a sqlite URL without a file, or with options", expected=EXPECTED)
    raise ConfigError("store", found=f"a URL that starts with {url.drivername}://", expected=EXPECTED)


def _is_sqlite(url: URL) -> bool:
    return url.drivername == "sqlite"


def _sqlite_writer(url: URL, wait_s: float) -> Engine:
    # isolation_level None: sqlite3 begins no transaction of its own (it would leave tables being made outside of it).
    engine = create_engine(url, connect_args={"timeout": wait_s, "isolation_level": None})
    settings = (
        "PRAGMA foreign_keys = ON",
        "PRAGMA journal_mode = WAL",  # readers go on while a writer writes
        # FULL: a commit outlives a power cut. NORMAL could lose the last round's rows while its model is on disk, and a
        # few commits per round cost nothing.
        "PRAGMA synchronous = FULL",
    )
    _on_connect(engine, settings)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: waits for its turn here; a lock asked for in mid transaction is refused without waiting.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _sqlite_reader(url: URL, wait_s: float) -> Engine:
    # No pool: opening takes no time, and a store that was moved and made anew is found by the next query.
    read_only = url.set(database=f"file:{quote(url.database or '')}", query={"mode": "ro", "uri": "true"})
    return create_engine(read_only, connect_args={"timeout": wait_s}, poolclass=NullPool)


def _postgresql(url: URL, wait_s: float, *settings: str) -> Engine:
    url = url.update_query_dict({name: value for name, value in PATIENCE.items() if name not in url.query})
    try:
        # Hours lie between two rounds, time enough for a firewall to drop an idle connection: ask before use.
        engine = create_engine(url, pool_pre_ping=True)
    except ImportError:  # also psycopg without the libpq that its [binary] brings
        raise ConfigError(
            shown(url),
            found="psycopg is not installed, or incomplete",
            expected="it, to speak with PostgreSQL",
            remedy="install it: pip install 'brainunet-fl[postgres]'",
        ) from None
    _on_connect(engine, (f"SET lock_timeout = {int(wait_s * 1000)}", *settings))
    return engine


def _on_connect(engine: Engine, statements: Sequence[str]) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        try:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        except Exception:
            connection.close()
            raise


def _checked(engine: Engine, check: Callable[[Connection, str], None]) -> Engine:
    try:
        with explained(engine.url), engine.begin() as connection:
            check(connection, shown(engine.url))
    except BaseException:
        engine.dispose()
        raise
    return engine
