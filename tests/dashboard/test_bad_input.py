"""Stores that are missing, foreign, locked or away: each page says so, and recovers by itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from brainunet_dashboard.pages import PAGES
from brainunet_dashboard.source import Source
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.writer import StoreWriter
from tests.support.drawn import went_well, words
from tests.support.postgres_restart import Server, server
from tests.support.watched import a_run, eventful

__all__ = ["server"]  # a fixture

Show = Callable[..., AppTest]
OVER_THE_STORE = [name for page in PAGES if (name := page.show.__module__.rpartition(".")[2]) != "audit"]


@pytest.mark.parametrize("page", OVER_THE_STORE)
def test_a_store_that_is_not_there_is_waited_for(page: str, show: Show, database: Path) -> None:
    test = show(page)
    assert "no such file" in test.error[0].value
    assert "looks again by itself" in words(test)

    eventful(database)
    test.run()

    assert went_well(test)


def test_a_run_that_is_about_to_begin_is_no_problem(show: Show, database: Path, tmp_path: Path) -> None:
    (tmp_path / "federation.toml").touch()
    test = show("federation", Source(database, tmp_path))
    assert went_well(test)
    assert "No run yet. Start one" in words(test)
    assert f"flower-server run {tmp_path}" in words(test)

    eventful(database)

    assert "Round: 7 of 8" in words(test.run())
    assert "No run yet" in words(show("sites", Source(tmp_path / "soon.sqlite", waits=True)))


def test_an_empty_file_is_no_store_until_a_run_has_made_it_one(show: Show, database: Path) -> None:
    database.touch()
    test = show("federation")
    assert "a database that is no store" in test.error[0].value
    assert "Start a run there first" in test.error[0].value.replace("\\", "")

    eventful(database)

    assert went_well(test.run())


def test_another_programs_database_is_said_to_be_one(show: Show, database: Path) -> None:
    with sqlite3.connect(database) as raw:
        raw.execute("CREATE TABLE patients (name TEXT)")

    assert "no store" in show("federation").error[0].value


def test_a_file_that_is_no_database(show: Show, database: Path) -> None:
    database.write_bytes(b"not a database, though it is long enough to look like one" * 50)

    assert "not a SQLite database" in show("sites").error[0].value.replace("\\", "")


@pytest.mark.parametrize(
    ("version", "found", "remedy"),
    [
        ("0003", "older version", "Start the coordinator once with this version"),
        ("9999", "newer version", "Install the version of brainunet-fl that wrote it"),
    ],
)
def test_a_store_of_another_version_says_which_and_how_to_migrate(
    version: str, found: str, remedy: str, show: Show, database: Path
) -> None:
    eventful(database)
    current = _set_version(database, version)
    test = show("federation")
    said = test.error[0].value.replace("\\", "")
    assert found in said
    assert version in said
    assert remedy in said

    _set_version(database, current)

    assert went_well(test.run())


def test_a_locked_store_is_read_when_it_is_free_again(show: Show, database: Path) -> None:
    eventful(database)
    raw = sqlite3.connect(database, isolation_level=None)
    raw.execute("PRAGMA journal_mode = DELETE")
    raw.execute("BEGIN EXCLUSIVE")
    test = show("federation")
    assert "locked by another program" in test.error[0].value

    raw.execute("COMMIT")
    raw.close()

    assert went_well(test.run())


def test_a_run_that_is_deleted_while_it_is_shown(show: Show, database: Path) -> None:
    run = eventful(database)
    with StoreWriter(database) as writer:
        writer.start_run(replace(a_run("later"), started_at=a_run().started_at.replace(year=2027)))
    test = show("federation", chosen=run)
    assert "Round: 7 of 8" in words(test)

    with sqlite3.connect(database) as raw:
        for table in ("downloads", "releases", "spends", "models", "scores", "site_rounds"):
            raw.execute(f"DELETE FROM {table}")
        raw.execute("DELETE FROM runs WHERE id = ?", (run,))
    test.run()

    assert went_well(test)
    assert "fed\\-1 is no longer in the store" in words(test)
    assert "Round: 1 of 8" in words(test)


@pytest.mark.slow
def test_a_postgresql_server_that_goes_away_and_comes_back(server: Server, show: Show) -> None:
    url = server.new_url()
    eventful(url)
    test = show("federation", Source(url))
    assert "Round: 7 of 8" in words(test)

    server.stop()
    try:
        test.run()
        assert test.error
        assert not test.exception
        assert "tester" in test.error[0].value
    finally:
        server.start()

    assert went_well(test.run())
    assert "Round: 7 of 8" in words(test)


@pytest.mark.slow
def test_a_postgresql_machine_that_is_gone_without_a_word_is_given_up_after_half_a_minute(server: Server) -> None:
    url = server.new_url()
    eventful(url)
    with StoreReader(url) as reader, reader.engine.connect() as connection:
        told = connection.connection.dbapi_connection.info.get_parameters()  # type: ignore[union-attr]

    assert (told["tcp_user_timeout"], told["keepalives_idle"], told["connect_timeout"]) == ("30000", "20", "10")


def test_a_password_is_in_no_message(show: Show) -> None:
    test = show("federation", Source("postgresql+psycopg://fl:secret@127.0.0.1:1/fl"))

    assert test.error
    assert "secret" not in words(test)


def _set_version(database: Path, version: str) -> str:
    with sqlite3.connect(database) as raw:
        before = str(raw.execute("SELECT version_num FROM brainunet_schema").fetchone()[0])
        raw.execute("UPDATE brainunet_schema SET version_num = ?", (version,))
    return before
