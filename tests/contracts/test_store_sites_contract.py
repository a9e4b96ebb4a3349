"""What the store promises about the sites of a federation, and about stores of earlier versions, on every database."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import MetaData, Table, create_engine

from brainunet.errors import ConfigError
from brainunet_server.store.opening import address
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import Outcome, SiteRound, SiteSeen
from brainunet_server.store.schema import MIGRATIONS, current_version, upgrade
from brainunet_server.store.writer import StoreWriter
from tests.support.store import NOON, RUN, answered, dice, run_rounds, saved


def test_figures_that_a_site_withheld_are_told_from_figures_it_never_had(writer: StoreWriter, reader: StoreReader) -> None:
    withheld = replace(answered(1, "boston"), withheld=True, cases_validation=2)
    writer.start_run(RUN)

    writer.record_exchange(RUN.id, 1, [withheld, answered(1, "lagos")], [])

    assert [(row.site, row.withheld) for row in reader.site_rounds(RUN.id)] == [("boston", True), ("lagos", False)]
    assert reader.site_rounds(RUN.id)[0] == withheld


def test_a_reply_that_comes_late_is_told_of_a_site_that_was_absent(writer: StoreWriter, reader: StoreReader) -> None:
    absent = SiteRound(run_id=RUN.id, round=2, site="kigali", outcome="absent", reason="no reply in time", bytes_down=9)
    run_rounds(writer, last=1)
    writer.record_exchange(RUN.id, 2, [answered(2, "lagos"), absent], [])

    for _ in range(2):
        writer.mark_late(RUN.id, 2, "kigali", 5_000_000_000, "40 s after the deadline")

    late = replace(absent, outcome="late", reason="40 s after the deadline", bytes_up=5_000_000_000)
    assert reader.site_rounds(RUN.id, after_round=1) == [late, answered(2, "lagos")]
    assert len(reader.site_rounds(RUN.id)) == 4


def test_a_late_reply_of_a_site_that_nobody_counted_on_makes_a_row_of_its_own(writer: StoreWriter, reader: StoreReader) -> None:
    run_rounds(writer, last=1)

    for _ in range(2):
        writer.mark_late(RUN.id, 1, "kigali", 7, "after the end of the round")

    late = SiteRound(run_id=RUN.id, round=1, site="kigali", outcome="late", reason="after the end of the round", bytes_up=7)
    assert reader.site_rounds(RUN.id) == [answered(1, "boston"), late, answered(1, "lagos")]


@pytest.mark.parametrize("outcome", ["answered", "fault", "refused"])
def test_a_second_reply_that_is_late_never_hides_the_first(writer: StoreWriter, reader: StoreReader, outcome: Outcome) -> None:
    first = replace(answered(1, "lagos"), outcome=outcome)
    writer.start_run(RUN)
    writer.record_exchange(RUN.id, 1, [first], [])

    writer.mark_late(RUN.id, 1, "lagos", 7, "after the end of the round")

    assert reader.site_rounds(RUN.id) == [first]


def test_the_sites_are_kept_as_they_were_last_seen_one_row_each(writer: StoreWriter, reader: StoreReader) -> None:
    assert reader.sites() == []
    lagos = SiteSeen(name="lagos", state="never seen", certificate_expires_at=NOON + timedelta(days=365), enrolled_at=NOON)
    boston = SiteSeen(name="Boston", state="working", last_seen_at=NOON, client_version="0.1.0", enrolled_at=NOON)
    writer.record_sites([lagos, boston])
    assert reader.sites() == [boston, lagos]

    seen = replace(lagos, state="connected", last_seen_at=NOON + timedelta(minutes=1), client_version="0.2.0")
    revoked = replace(boston, state="revoked", revoked_at=NOON, client_version=None)
    for _ in range(2):
        writer.record_sites([seen, revoked])

    assert reader.sites() == [revoked, seen]
    writer.record_sites([lagos])  # of the other nothing is said, so nothing is changed
    writer.record_sites([])
    assert reader.sites() == [revoked, lagos]


def test_the_sites_are_recorded_whole_or_not_at_all(writer: StoreWriter, reader: StoreReader) -> None:
    lagos = SiteSeen(name="lagos", state="connected")

    with pytest.raises(ValueError, match="named twice"):
        writer.record_sites([lagos, SiteSeen(name="boston", state="silent"), lagos])

    assert reader.sites() == []


def test_threads_that_record_the_same_sites_at_once_do_not_disturb_each_other(where: str) -> None:
    names = [f"site-{number}" for number in range(8)]

    def record(number: int) -> None:
        order = names[number % 8 :] + names[: number % 8]
        shared.record_sites([SiteSeen(name=name, state="connected", client_version=str(number)) for name in order])

    with StoreWriter(where) as shared, ThreadPoolExecutor(4) as pool:
        list(pool.map(record, range(24)))

    with StoreReader(where) as reader:
        assert [site.name for site in reader.sites()] == names
        assert len({site.client_version for site in reader.sites()}) == 1  # all of one call


def test_a_store_of_the_first_version_keeps_its_rows_when_this_one_opens_it(where: str, tmp_path: Path) -> None:
    first = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    for path in (first / "versions").glob("*.py"):
        if not path.name.startswith("0001"):
            path.unlink()
    old = create_engine(address(where))
    with old.begin() as connection:
        upgrade(connection, "store", first)
        assert current_version(connection) == "0001"
        names = ("runs", "site_rounds", "scores", "models")
        tables = {name: Table(name, MetaData(), autoload_with=connection) for name in names}
        late = SiteRound(run_id=RUN.id, round=1, site="kigali", outcome="late", reason="after the deadline")
        rows = {"runs": RUN, "site_rounds": answered(1, "lagos"), "scores": dice(0, "lagos"), "models": saved(1)}
        for name, row in [*rows.items(), ("site_rounds", late)]:
            kept = {column.name: value for column in tables[name].columns if (value := getattr(row, column.name)) is not None}
            connection.execute(tables[name].insert().values(kept))
    old.dispose()
    with pytest.raises(ConfigError, match=r"older version \(0001\), but expected \d{4}\. Start the coordinator once"):
        StoreReader(where)

    StoreWriter(where).close()

    with StoreReader(where) as reader:
        lagos = replace(answered(1, "lagos"), update_norm=None, update_digest=None)
        assert (reader.runs(), reader.models(RUN.id), reader.scores(RUN.id)) == ([RUN], [saved(1)], [dice(0, "lagos")])
        assert reader.site_rounds(RUN.id) == [late, lagos]
        assert {row.withheld for row in reader.site_rounds(RUN.id)} == {False}
        assert reader.sites() == []
