"""A store of an earlier version is taken on whole or not at all, and no row of it is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from brainunet.errors import ConfigError
from brainunet_server.store.opening import open_for_writing
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.schema import MIGRATIONS, current_version, require_current, upgrade
from brainunet_server.store.writer import StoreWriter
from tests.support.store import RUN

HEAD: Final = str(ScriptDirectory(str(MIGRATIONS)).get_current_head())

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "9001"
down_revision = "@"

def upgrade() -> None:
    op.add_column("runs", sa.Column("note", sa.Text()))
"""


@pytest.fixture
def newer_migrations(tmp_path: Path) -> Path:
    """Those of a later version, with one more."""
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    (folder / "versions" / "9001_note.py").write_text(NEXT.replace("@", HEAD))
    return folder


def test_a_later_version_takes_an_older_store_on_and_its_reader_waits_for_that(tmp_path: Path, newer_migrations: Path) -> None:
    where = tmp_path / "store.sqlite"
    with StoreWriter(where) as writer:
        writer.start_run(RUN)
        with writer.engine.begin() as connection:
            with pytest.raises(ConfigError, match=rf"older version \({HEAD}\), but expected 9001\. Start the coordinator"):
                require_current(connection, "store", newer_migrations)
            upgrade(connection, "store", newer_migrations)

        with writer.engine.connect() as connection:
            assert current_version(connection) == "9001"
            assert connection.exec_driver_sql("SELECT id, note FROM runs").all() == [(RUN.id, None)]
            require_current(connection, "store", newer_migrations)


def test_a_migration_that_fails_leaves_the_store_as_it_was(tmp_path: Path, newer_migrations: Path) -> None:
    (newer_migrations / "versions" / "9002_broken.py").write_text(
        NEXT.replace("9001", "9002").replace("@", "9001").replace("op.add_column", "op.no_such_step")
    )
    engine = open_for_writing(tmp_path / "store.sqlite")
    with pytest.raises(AttributeError, match="no_such_step"), engine.begin() as connection:
        upgrade(connection, "store", newer_migrations)

    with engine.connect() as connection:
        assert current_version(connection) == HEAD
        assert "note" not in [column["name"] for column in inspect(connection).get_columns("runs")]
    engine.dispose()


def test_the_models_of_a_store_from_before_any_was_removed_are_all_there(tmp_path: Path) -> None:
    before = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    for later in sorted((before / "versions").glob("*.py"))[2:]:
        later.unlink()
    where = tmp_path / "store.sqlite"
    engine = open_for_writing(where)
    with engine.begin() as connection:
        for table in inspect(connection).get_table_names():
            connection.exec_driver_sql(f"DROP TABLE {table}")
    with engine.begin() as connection:
        upgrade(connection, "store", before)
        connection.exec_driver_sql(
            "INSERT INTO runs (id, kind, strategy, preset, norm, rounds, seed, config, config_sha256, started_at, status)"
            " VALUES ('glioma-1', 'federation', 'fedavg', 'p', 'group', 1, 0, '{}', '', '2026-03-01 12:00:00', 'running')"
        )
        connection.exec_driver_sql("INSERT INTO models VALUES ('glioma-1', 0, 'm', 'd', 9, '2026-03-01 12:00:00')")
    engine.dispose()

    StoreWriter(where).close()

    with StoreReader(where) as reader:
        assert [(model.digest, model.removed_at) for model in reader.models("glioma-1")] == [("d", None)]
