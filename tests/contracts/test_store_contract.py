"""What the store promises, on every database that it works with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text, update

import brainunet
import brainunet_server.store
from brainunet.errors import BrainUNetError, ConfigError
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import SiteRound
from brainunet_server.store.schema import VERSION_TABLE
from brainunet_server.store.tables import metadata, runs
from brainunet_server.store.writer import StoreWriter
from tests.support.store import NOON, RUN, answered, dice, newest_model, run_rounds, saved


def test_the_migrations_make_exactly_the_tables_that_the_code_declares(writer: StoreWriter) -> None:
    with writer.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_what_was_recorded_is_read_back_equal(writer: StoreWriter, reader: StoreReader) -> None:
    late = SiteRound(run_id=RUN.id, round=1, site="kigali", outcome="late", reason="after the deadline of 600 s")
    writer.start_run(RUN)
    writer.record_exchange(RUN.id, 1, [answered(1, "lagos", loss=1 / 3), late], [dice(0, "lagos", None)])
    writer.record_model(saved(1))

    assert reader.run(RUN.id) == RUN
    assert reader.site_rounds(RUN.id) == [late, answered(1, "lagos", loss=1 / 3)]
    assert reader.scores(RUN.id) == [dice(0, "lagos", None)]
    assert reader.models(RUN.id) == [saved(1)]


def test_a_time_of_any_zone_is_kept_as_the_same_moment_in_utc(writer: StoreWriter, reader: StoreReader) -> None:
    in_lagos = NOON.astimezone(timezone(timedelta(hours=1)))

    writer.start_run(replace(RUN, started_at=in_lagos))

    started_at = reader.run(RUN.id).started_at
    assert (started_at, started_at.tzinfo) == (NOON, UTC)


def test_lists_come_in_one_order_whatever_the_database_sorts_like(writer: StoreWriter, reader: StoreReader) -> None:
    names = ["b", "a-2", "B", "é", "a1"]
    writer.start_run(replace(RUN, id="later", started_at=NOON + timedelta(seconds=1)))
    writer.start_run(RUN)
    for number in (2, 1):
        writer.record_exchange(RUN.id, number, [answered(number, name) for name in names], [])

    assert [run.id for run in reader.runs()] == [RUN.id, "later"]
    by_site = ["B", "a-2", "a1", "b", "é"]
    assert [row.site for row in reader.site_rounds(RUN.id)] == by_site * 2
    assert [row.round for row in reader.site_rounds(RUN.id)] == [1] * 5 + [2] * 5


def test_recording_an_exchange_again_puts_its_rows_in_the_place_of_the_earlier(
    writer: StoreWriter, reader: StoreReader
) -> None:
    run_rounds(writer, last=2)

    for _ in range(2):
        writer.record_exchange(RUN.id, 2, [answered(2, "kigali")], [dice(1, "kigali", 0.9)])

    assert [(row.round, row.site) for row in reader.site_rounds(RUN.id)] == [(1, "boston"), (1, "lagos"), (2, "kigali")]
    assert [(row.round, row.site) for row in reader.scores(RUN.id)] == [(0, "boston"), (0, "lagos"), (1, "kigali")]


def test_an_exchange_that_nobody_answered_leaves_no_rows_of_an_earlier_try(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)

    writer.record_exchange(RUN.id, 1, [], [])

    assert (reader.site_rounds(RUN.id), reader.scores(RUN.id)) == ([], [])


def test_a_row_of_another_round_or_run_is_refused_and_nothing_is_written(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)
    before = reader.site_rounds(RUN.id), reader.scores(RUN.id)

    with pytest.raises(ValueError, match="round 1 among those of run glioma-1, round 2"):
        writer.record_exchange(RUN.id, 2, [answered(1, "lagos")], [])
    with pytest.raises(ValueError, match="round 1 among those of run glioma-1, round 0"):
        writer.record_exchange(RUN.id, 1, [], [dice(1, "lagos")])

    assert (reader.site_rounds(RUN.id), reader.scores(RUN.id)) == before


def test_an_exchange_is_recorded_whole_or_not_at_all(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)
    before = reader.site_rounds(RUN.id)

    with pytest.raises(Exception, match=r"(?i)unique"):
        writer.record_exchange(RUN.id, 1, [answered(1, "kigali")], [dice(0, "kigali"), dice(0, "kigali")])

    assert reader.site_rounds(RUN.id) == before


def test_starting_a_run_again_resumes_it(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=2)
    writer.finish_run(RUN.id, "interrupted", at=NOON + timedelta(hours=1))
    assert reader.run(RUN.id).status == "interrupted"
    assert reader.run(RUN.id).finished_at == NOON + timedelta(hours=1)

    resumed = writer.start_run(replace(RUN, started_at=NOON + timedelta(hours=2)))

    assert resumed == reader.run(RUN.id) == RUN
    assert newest_model(reader, RUN.id) == 2


def test_a_run_does_not_resume_with_other_settings(writer: StoreWriter, reader: StoreReader) -> None:
    writer.start_run(RUN)

    with pytest.raises(ConfigError, match=r"config_sha256 .*with which it was started\. Resume it with the settings"):
        writer.start_run(replace(RUN, config_sha256="00" * 32))
    with pytest.raises(ConfigError, match="kind simulation, but expected federation"):
        writer.start_run(replace(RUN, kind="simulation"))

    assert reader.runs() == [RUN]


def test_a_local_baseline_belongs_to_a_run_that_is_there(writer: StoreWriter, reader: StoreReader) -> None:
    local = replace(RUN, id="glioma-1.lagos", kind="local", site="lagos", parent_id=RUN.id)
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        writer.start_run(local)

    writer.start_run(RUN)
    writer.start_run(local)

    assert reader.run(local.id) == local


def test_a_run_that_never_started_is_refused_by_name(writer: StoreWriter, reader: StoreReader) -> None:
    writer.start_run(RUN)
    attempts: tuple[Callable[[], None], ...] = (
        lambda: writer.record_exchange("glioma-2", 1, [], []),
        lambda: writer.record_model(replace(saved(1), run_id="glioma-2")),
        lambda: writer.rewind("glioma-2", 0),
        lambda: writer.mark_late("glioma-2", 1, "lagos", 7, "late"),
        lambda: writer.finish_run("glioma-2", "completed"),
    )
    for attempt in attempts:
        with pytest.raises(ConfigError, match="no run glioma-2"):
            attempt()
    with pytest.raises(ConfigError, match="did you mean glioma-1"):
        reader.run("glioma-2")
    assert reader.site_rounds("glioma-2") == []
    assert newest_model(reader, "glioma-2") is None


def test_a_reader_can_ask_for_what_is_new_and_for_one_metric(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=2)
    hd95 = replace(dice(2, "lagos"), metric="hd95_mm")
    writer.record_exchange(RUN.id, 3, [], [dice(2, "lagos"), hd95])

    assert {row.round for row in reader.site_rounds(RUN.id, after_round=1)} == {2}
    assert reader.scores(RUN.id, after_round=1, metric="hd95_mm") == [hd95]


def test_a_reader_sees_the_last_commit_while_a_writer_writes(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)

    with writer.engine.begin() as unfinished:
        unfinished.execute(update(runs).values(status="failed"))
        assert reader.run(RUN.id).status == "running"

    assert reader.run(RUN.id).status == "failed"


def test_a_reader_cannot_write(writer: StoreWriter, reader: StoreReader) -> None:
    writer.start_run(RUN)

    with pytest.raises(Exception, match=r"(?i)read-?only"), reader.engine.begin() as connection:
        connection.execute(update(runs).values(status="failed"))


def test_a_writer_that_waits_too_long_for_another_says_so(where: str, writer: StoreWriter) -> None:
    writer.start_run(RUN)
    with StoreWriter(where) as other, other.engine.begin() as unfinished:
        unfinished.execute(update(runs).values(status="failed"))
        with pytest.raises(BrainUNetError, match="locked by another program"):
            writer.finish_run(RUN.id, "completed")

    writer.finish_run(RUN.id, "completed")


def test_a_reader_refuses_a_database_without_a_store_and_leaves_it_empty(where: str) -> None:
    with pytest.raises(ConfigError, match=r"[Ss]tart a run there first"):
        StoreReader(where)
    with pytest.raises(ConfigError, match=r"[Ss]tart a run there first"):
        StoreReader(where)


def test_tables_of_a_newer_version_are_left_to_it(where: str, writer: StoreWriter) -> None:
    with writer.engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    for side in (StoreReader, StoreWriter):
        with pytest.raises(ConfigError, match=r"newer version .*Install the version of brainunet-fl that wrote it"):
            side(where)


def test_tables_of_another_program_are_left_alone(where: str, writer: StoreWriter) -> None:
    with writer.engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))

    with pytest.raises(ConfigError, match=r"tables of another program \(.*Give the store a file or database of its own"):
        StoreWriter(where)


def test_programs_that_open_a_new_store_at_once_make_its_tables_once(where: str) -> None:
    def start(number: int) -> None:
        with StoreWriter(where) as writer:
            writer.start_run(replace(RUN, id=f"glioma-{number}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(4)))

    with StoreReader(where) as reader:
        assert [run.id for run in reader.runs()] == ["glioma-0", "glioma-1", "glioma-2", "glioma-3"]


def test_threads_that_record_at_once_take_turns(where: str) -> None:
    with StoreWriter(where) as writer, ThreadPoolExecutor(4) as pool:
        writer.start_run(RUN)
        list(pool.map(lambda number: writer.record_exchange(RUN.id, number, [answered(number, "lagos")], []), range(1, 41)))

    with StoreReader(where) as reader:
        assert [row.round for row in reader.site_rounds(RUN.id)] == list(range(1, 41))


def test_opening_again_changes_nothing(where: str, writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)

    with StoreWriter(where):
        pass

    assert reader.run(RUN.id) == RUN
    assert newest_model(reader, RUN.id) == 1


KILLED = """
import sys, time
from sqlalchemy import delete
from brainunet_server.store.tables import models, runs, site_rounds
from brainunet_server.store.writer import StoreWriter

connection = StoreWriter(sys.argv[1]).engine.connect()
connection.begin()
for table in (models, site_rounds):
    connection.execute(delete(table))
print("in mid transaction", flush=True)
time.sleep(60)
"""


def test_a_coordinator_killed_in_mid_transaction_keeps_its_earlier_rounds(where: str) -> None:
    with StoreWriter(where) as writer:
        run_rounds(writer, last=2)
    homes = [Path(module.__file__ or "").parents[up] for module, up in ((brainunet, 1), (brainunet_server.store, 2))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, homes))}
    command = [sys.executable, "-c", KILLED, where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as coordinator:
        assert coordinator.stdout is not None
        assert coordinator.stdout.readline() == b"in mid transaction\n"
        coordinator.send_signal(signal.SIGKILL)

    with StoreReader(where) as reader:
        assert newest_model(reader, RUN.id) == 2
        assert len(reader.site_rounds(RUN.id)) == 4
        with StoreWriter(where) as writer:
            writer.record_model(saved(3))
        assert newest_model(reader, RUN.id) == 3
