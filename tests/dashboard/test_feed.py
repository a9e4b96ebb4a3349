"""A look for what is new fetches that and nothing else; whatever changes a store is noticed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from brainunet.errors import BrainUNetError, ConfigError
from brainunet_dashboard.feed import Feed
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.writer import StoreWriter
from tests.support.postgres import postgres_server, postgres_url
from tests.support.store import where
from tests.support.watched import BEGAN, SITES, a_model, a_run, eventful, exchange_of, score, simulations, spend

__all__ = ["postgres_server", "postgres_url", "where"]  # fixtures


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(where: str) -> Iterator[StoreWriter]:
    with StoreWriter(where) as writer:
        writer.start_run(a_run())
        for k in range(1, 6):
            exchange_of(writer, "fed-1", k)
        yield writer


@pytest.fixture
def feed(where: str, store: StoreWriter) -> Iterator[Feed]:
    feed = Feed(where, fresh_s=0)
    yield feed
    feed.close()


def test_a_new_round_costs_that_round_and_the_one_before(feed: Feed, store: StoreWriter) -> None:
    assert len(feed.figures("fed-1")) == 5 * 3 * 5
    assert len(feed.site_rounds("fed-1")) == 5 * 3
    exchange_of(store, "fed-1", 6)
    before = feed.rows_fetched

    assert len(feed.figures("fed-1")) == 6 * 3 * 5
    assert feed.rows_fetched - before == 2 * 3 * 5
    assert len(feed.site_rounds("fed-1")) == 6 * 3
    assert feed.rows_fetched - before == 2 * 3 * 5 + 2 * 3


def test_what_was_read_in_parts_is_what_is_read_at_once(feed: Feed, where: str, store: StoreWriter) -> None:
    for k in range(6, 9):
        exchange_of(store, "fed-1", k, SITES[: k - 4])
        feed.figures("fed-1")
        feed.site_rounds("fed-1")

    with StoreReader(where) as reader:
        assert list(feed.figures("fed-1")) == reader.figures("fed-1", "dice")
        assert list(feed.site_rounds("fed-1")) == reader.site_rounds("fed-1")


def test_a_figure_is_the_score_that_was_stored(feed: Feed, where: str) -> None:
    with StoreReader(where) as reader:
        scores = reader.scores("fed-1", metric="dice")

    assert [tuple(row) for row in feed.figures("fed-1")] == [
        (row.round, row.site, row.structure, row.mean, row.median, row.n, row.missing) for row in scores
    ]


def test_the_figures_of_one_round_are_those_of_every_metric(database: Path) -> None:
    simulations(database)
    feed = Feed(database, fresh_s=0)
    found = feed.figures_of_round("sim-1", 2)

    assert feed.rows_fetched == 2 * 3 * 5
    assert list(found["hd95_mm"]) == [row for row in feed.figures("sim-1", "hd95_mm") if row.round == 2]


def test_a_reply_that_came_late_after_all_is_seen_in_a_round_long_past(feed: Feed, store: StoreWriter) -> None:
    rows = [row for row in feed.site_rounds("fed-1") if row.round == 2]
    store.record_exchange("fed-1", 2, rows[:2], [])
    assert len(feed.site_rounds("fed-1")) == 5 * 3 - 1

    store.mark_late("fed-1", 2, rows[2].site, 0, "too late")

    assert [row.outcome for row in feed.site_rounds("fed-1") if row.round == 2] == ["answered", "answered", "late"]


def test_a_run_that_went_back_is_read_again(feed: Feed, store: StoreWriter) -> None:
    feed.figures("fed-1")
    store.rewind("fed-1", 2)
    assert {row.round for row in feed.figures("fed-1")} == {0, 1}

    store.record_exchange("fed-1", 3, [], [score("fed-1", 2, "CRV", "WT", 0.123)])

    assert feed.figures("fed-1")[-1].mean == 0.123


def test_another_value_in_a_round_long_past_is_noticed(feed: Feed, store: StoreWriter) -> None:
    feed.figures("fed-1")
    old = [row for row in feed.figures("fed-1") if row.round == 1]

    store.record_exchange(
        "fed-1",
        2,
        [],
        [score("fed-1", 1, row.site, row.structure, 0.5, row.n) for row in old],  # type: ignore[arg-type]
    )

    assert {row.mean for row in feed.figures("fed-1") if row.round == 1} == {0.5}


def test_spends_are_read_by_the_time_they_were_told(feed: Feed, store: StoreWriter) -> None:
    store.record_spends([spend("fed-1", k, "CRV", k) for k in (1, 2, 3)])
    assert len(feed.spends("fed-1")) == 3
    store.record_spends([spend("fed-1", 4, "CRV", 4.0)])
    before = feed.rows_fetched

    assert [row.epsilon for row in feed.spends("fed-1")] == [1, 2, 3, 4]
    assert feed.rows_fetched - before == 2  # the last one known, and the new one


def test_parts_of_a_page_share_a_look_for_a_second(where: str, store: StoreWriter) -> None:
    clock = Clock()
    feed = Feed(where, fresh_s=1, clock=clock)
    feed.runs()
    store.start_run(a_run("fed-2"))

    clock.now = 0.9
    assert len(feed.runs()) == 1
    clock.now = 1.1
    assert len(feed.runs()) == 2
    feed.close()


@pytest.mark.slow
def test_what_is_kept_is_bounded(database: Path) -> None:
    simulations(database, rounds=4)
    feed = Feed(database, fresh_s=0, most_rows=120)

    for run in ("sim-1", "sim-2", "sim-1-CRV", "sim-1-NKDC"):
        feed.figures(run)
        feed.figures(run, "hd95_mm")
        feed.site_rounds(run)

    assert feed.rows_kept <= 120
    assert len(feed.figures("sim-1")) == 5 * 3 * 5


def test_downloads_are_read_again_only_when_their_number_changes(database: Path) -> None:
    eventful(database)
    feed = Feed(database, fresh_s=0)
    assert len(feed.downloads()) == 3
    before = feed.rows_fetched

    assert len(feed.downloads()) == 3
    assert feed.rows_fetched == before


def test_sites_keep_their_place_when_others_come(database: Path) -> None:
    simulations(database)
    with StoreWriter(database) as writer:
        feed = Feed(database, fresh_s=0)
        first = list(feed.sites_by_arrival())
        writer.start_run(a_run("later", began=BEGAN + timedelta(days=40)))
        exchange_of(writer, "later", 1, ("AAA", *SITES[:3]))

        assert list(feed.sites_by_arrival()) == [*first, "AAA"]


def test_a_store_that_is_not_there_yet_is_found_when_it_is(database: Path) -> None:
    feed = Feed(database, fresh_s=0)
    with pytest.raises(ConfigError, match="no such file"):
        feed.runs()

    simulations(database)

    assert [run.id for run in feed.runs() if run.kind == "simulation"] == ["sim-1", "sim-2"]


def test_another_store_in_its_place_is_read_from_its_beginning(database: Path, tmp_path: Path) -> None:
    eventful(database)
    feed = Feed(database, fresh_s=0)
    assert feed.figures("fed-1")
    simulations(tmp_path / "other.sqlite")

    (tmp_path / "other.sqlite").replace(database)

    assert [run.id for run in feed.runs() if run.kind == "simulation"] == ["sim-1", "sim-2"]
    assert feed.figures("fed-1") == []


def test_tables_that_vanish_are_a_problem_in_words_and_their_return_is_noticed(database: Path) -> None:
    eventful(database)
    feed = Feed(database, fresh_s=0)
    feed.releases()
    with sqlite3.connect(database) as raw:
        raw.execute("ALTER TABLE releases RENAME TO hidden")
    with pytest.raises(ConfigError, match="other tables than its version has"):
        feed.releases()

    with sqlite3.connect(database) as raw:
        raw.execute("ALTER TABLE hidden RENAME TO releases")

    assert len(feed.releases()) == 2


def test_a_newer_store_says_which_version_it_is_also_when_it_becomes_so_while_it_is_open(database: Path) -> None:
    eventful(database)
    feed = Feed(database, fresh_s=0)
    feed.runs()
    with sqlite3.connect(database) as raw:
        raw.execute("UPDATE brainunet_schema SET version_num = '9999'")

    with pytest.raises(ConfigError, match=r"newer version .9999."):
        feed.runs()


def test_a_locked_store_is_a_problem_that_passes(database: Path) -> None:
    eventful(database)
    feed = Feed(database, fresh_s=0, wait_s=0.05)
    feed.runs()
    raw = sqlite3.connect(database, isolation_level=None)
    raw.execute("PRAGMA journal_mode = DELETE")  # without WAL a writer shuts readers out, as on a network drive
    raw.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BrainUNetError, match="locked by another program"):
        feed.runs()

    raw.execute("COMMIT")
    raw.close()

    assert [run.id for run in feed.runs()] == ["fed-1"]


def test_a_feed_never_writes(database: Path) -> None:
    eventful(database)
    before = {table: _count(database, table) for table in ("runs", "scores", "site_rounds", "models", "spends")}
    feed = Feed(database, fresh_s=0)
    with StoreWriter(database) as writer:
        writer.record_model(a_model("fed-1", 7))
    for read in (feed.runs, feed.sites, feed.releases, feed.readers, feed.downloads, feed.sites_by_arrival):
        read()
    for of in (feed.figures, feed.site_rounds, feed.models, feed.spends, feed.metrics):
        of("fed-1")

    assert {table: _count(database, table) for table in before} == before | {"models": before["models"] + 1}


def _count(database: Path, table: str) -> int:
    with sqlite3.connect(database) as raw:
        return int(raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
