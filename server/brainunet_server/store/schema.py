"""Which tables a database has, and bringing them up to date.

The migrations travel inside the package and are applied one after the other in the caller's transaction, all or none.
That takes three of alembic's public calls, so there is no alembic.ini and no env.py (and nothing that would set up
logging). A new one is one file in ``migrations/versions``, written by hand; a test compares the outcome with
``tables.metadata``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from brainunet.errors import ConfigError

MIGRATIONS: Final = Path(__file__).parent / "migrations"

# Not alembic's own "alembic_version": Flower keeps its version under that name, and one must never pass for the other.
VERSION_TABLE: Final = "brainunet_schema"


def upgrade(connection: Connection, where: str, migrations: Path = MIGRATIONS) -> None:
    """Make or update the tables, as far as it takes.

    Raises:
        ConfigError: the database belongs to another program, or to a newer version of this one.
    """
    if connection.dialect.name == "postgresql":  # two that start at once must not both migrate; SQLite's lock sees to that
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('brainunet_schema'))")
    scripts = _scripts(migrations)
    version = current_version(connection)
    if version is None and (tables := inspect(connection).get_table_names()):
        raise ConfigError(
            where,
            found=f"tables of another program ({', '.join(tables[:3])})",
            expected="an empty database or a store",
            remedy="give the store a file or database of its own",
        )
    _refuse_newer(version, scripts, where)
    context = _context(connection)
    steps = list(scripts.iterate_revisions("head", version or "base"))
    with Operations.context(context):
        for step in reversed(steps):
            step.module.upgrade()
    context.stamp(scripts, "head")


def require_current(connection: Connection, where: str, migrations: Path = MIGRATIONS) -> None:
    """Refuse tables that are not exactly those this program knows.

    Raises:
        ConfigError: missing, older or newer, with what to do.
    """
    scripts = _scripts(migrations)
    version, head = current_version(connection), scripts.get_current_head()
    if version is None:
        raise ConfigError(
            where,
            found="a database that is no store",
            expected="the store of a federation or simulation",
            remedy="start a run there first, or give the store that one has written",
        )
    _refuse_newer(version, scripts, where)
    if version != head:
        raise ConfigError(
            where,
            found=f"tables of an older version ({version})",
            expected=str(head),
            remedy="start the coordinator once with this version: it updates the store",
        )


def current_version(connection: Connection) -> str | None:
    """The revision that was applied last, None of a database without any."""
    return _context(connection).get_current_revision()


@lru_cache
def _scripts(migrations: Path) -> ScriptDirectory:
    """Kept, since each new one reads and runs all the files again, and a store is opened many times."""
    return ScriptDirectory(str(migrations))


def _context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})


def _refuse_newer(version: str | None, scripts: ScriptDirectory, where: str) -> None:
    known = [script.revision for script in scripts.walk_revisions()]
    if version is not None and version not in known:
        raise ConfigError(
            where,
            found=f"tables of a newer version ({version})",
            expected=f"at most {known[0]}",
            remedy="install the version of brainunet-fl that wrote it, or a newer one",
        )
