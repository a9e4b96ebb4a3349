"""The writer's steps for what is published, each inside a transaction that its caller began.

Said twice is said once, as in ``writer``: a step finds its own row of before and leaves it.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from brainunet.errors import ConfigError
from brainunet_server.store.rows import DownloadRow, ReaderRow, ReleaseRow
from brainunet_server.store.tables import downloads, readers, releases

_SEE_RELEASES: Final = "see them all: flower-server models DIR"
_SEE_READERS: Final = "see them all: flower-server reader list DIR"


def add_release(connection: Connection, release: ReleaseRow) -> None:
    """A release, once.

    Raises:
        ConfigError: another of this name.
    """
    there = _taken(connection, releases, release.name)
    if there is None:
        connection.execute(insert(releases).values(asdict(release)))
    elif replace(ReleaseRow(**there), withdrawn_at=None, withdrawn_reason=None) != release:
        raise ConfigError(
            f"release {release.name}",
            found="a release of this name",
            expected="a new name: a release never changes",
            remedy="publish under another name",
        )


def withdraw_release(connection: Connection, name: str, reason: str, at: datetime) -> None:
    """A release that may no longer be fetched.

    Raises:
        ConfigError: no such release, or one that was withdrawn before for another reason or at another time.
    """
    release = ReleaseRow(**_row(connection, releases, name, "release", _SEE_RELEASES))
    if (release.withdrawn_at, release.withdrawn_reason) == (at, reason):
        return
    if release.withdrawn_at is not None:
        raise ConfigError(
            f"release {name}",
            found=f"withdrawn on {release.withdrawn_at:%Y-%m-%d} ({release.withdrawn_reason})",
            expected="a release that is not withdrawn",
        )
    replace(release, withdrawn_at=at, withdrawn_reason=reason)  # checks both
    gone = {"withdrawn_at": at, "withdrawn_reason": reason}
    connection.execute(update(releases).where(releases.c.name == name).values(gone))


def add_reader(connection: Connection, reader: ReaderRow) -> None:
    """A reader, in the place of one of this name that was revoked or has expired.

    Raises:
        ConfigError: one of this name whose pass can still be used.
    """
    there = _taken(connection, readers, reader.name)
    if there is not None:
        earlier = ReaderRow(**there)
        if earlier == reader:
            return
        if earlier.revoked_at is None and earlier.expires_at > reader.added_at:
            raise ConfigError(
                f"reader {reader.name}",
                found=f"a reader of this name, whose pass can be used until {earlier.expires_at:%Y-%m-%d}",
                expected="a new name",
                remedy=f"if the pass was lost, revoke it first: flower-server reader revoke DIR {reader.name}",
            )
        connection.execute(delete(readers).where(readers.c.name == reader.name))
    connection.execute(insert(readers).values(asdict(reader)))


def revoke_reader(connection: Connection, name: str, at: datetime) -> None:
    """A reader whose pass is refused.

    Raises:
        ConfigError: no such reader, or one that was revoked before.
    """
    reader = ReaderRow(**_row(connection, readers, name, "reader", _SEE_READERS))
    if reader.revoked_at == at:
        return
    if reader.revoked_at is not None:
        raise ConfigError(
            f"reader {name}", found=f"revoked on {reader.revoked_at:%Y-%m-%d}", expected="a reader that is not revoked"
        )
    connection.execute(update(readers).where(readers.c.name == name).values(revoked_at=at))


def add_download(connection: Connection, download: DownloadRow) -> None:
    """One time that a release was fetched; the same moment and reader once.

    Raises:
        ConfigError: no such release.
    """
    _row(connection, releases, download.release, "release", _SEE_RELEASES)
    kind = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(kind(downloads).values(asdict(download)).on_conflict_do_nothing())


def _taken(connection: Connection, table: Table, name: str) -> dict[str, Any] | None:
    """The row of this name. On PostgreSQL others who ask for a name wait until this transaction ends, as they do on SQLite."""
    if connection.dialect.name == "postgresql":  # FOR UPDATE can't lock a row that is not there yet
        connection.exec_driver_sql(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE")
    row = connection.execute(select(table).where(table.c.name == name)).mappings().one_or_none()
    return None if row is None else dict(row)


def _row(connection: Connection, table: Table, name: str, what: str, remedy: str) -> dict[str, Any]:
    row = connection.execute(select(table).where(table.c.name == name).with_for_update()).mappings().one_or_none()
    if row is None:
        raise ConfigError(f"{what} {name}", found=f"no {what} of this name", expected="one that is there", remedy=remedy)
    return dict(row)
