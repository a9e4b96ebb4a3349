"""A PostgreSQL server that goes away under a writer and comes back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import IntegrityError

from brainunet.errors import BrainUNetError, ConfigError
from brainunet_server.store.committing import committed
from brainunet_server.store.opening import open_for_writing
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import DownloadRow, ReaderRow, ReleaseRow, SiteRound, SiteSeen, SpendRow
from brainunet_server.store.writer import StoreWriter
from tests.support.postgres_restart import Server, server
from tests.support.store import NOON, RUN, dice, saved

__all__ = ["server"]  # a fixture

pytestmark = pytest.mark.slow  # one restart, of a server that is there already: test_store.py

ABSENT = SiteRound(run_id=RUN.id, round=1, site="lagos", outcome="absent")
SCORE, MODEL = dice(0, "lagos"), saved(0)


class Losses:
    """Which threads have seen an engine fail."""

    def __init__(self, engine: Engine) -> None:
        self._changed, self.threads = threading.Condition(), set[int]()
        event.listen(engine, "handle_error", self._note)

    def _note(self, _context: object) -> None:
        with self._changed:
            self.threads.add(threading.get_ident())
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.threads) >= count, timeout=30)


RELEASE = ReleaseRow(
    name="africa-1",
    run_id=RUN.id,
    round=1,
    file="published/africa-1.safetensors",
    sha256="ab" * 32,
    n_bytes=9,
    weights_sha256="cd" * 32,
    published_at=NOON,
)
EARLIER = replace(RELEASE, name="africa-0")
ANN = ReaderRow(name="ann", token_sha256="ef" * 32, added_at=NOON, expires_at=NOON + timedelta(days=1))
BEN = replace(ANN, name="ben")
DOWNLOAD = DownloadRow(release=EARLIER.name, who="lagos", kind="site", at=NOON, n_bytes=9, whole=True)
SPENT = SpendRow(
    run_id=RUN.id, round=1, site="lagos", epsilon=1.0, delta=1e-3, noise_multiplier=1.0, sample_rate=0.1, steps=20,
    accountant="rdp", told_at=RUN.started_at,
)  # fmt: skip
LAGOS = SiteSeen(name="lagos", state="silent")
CALLS: dict[str, Callable[[StoreWriter], object]] = {
    "start_run": lambda writer: writer.start_run(RUN),
    "record_exchange": lambda writer: writer.record_exchange(RUN.id, 1, [ABSENT], [SCORE]),
    "record_spends": lambda writer: writer.record_spends([SPENT]),
    "mark_late": lambda writer: writer.mark_late(RUN.id, 2, "lagos", 7, "late"),
    "record_model": lambda writer: writer.record_model(MODEL),
    "mark_removed": lambda writer: writer.mark_removed(RUN.id, [0], RUN.started_at),
    "record_sites": lambda writer: writer.record_sites([LAGOS]),
    "rewind": lambda writer: writer.rewind(RUN.id, 9),
    "finish_run": lambda writer: writer.finish_run(RUN.id, "completed"),
    "add_release": lambda writer: writer.add_release(RELEASE),
    "withdraw_release": lambda writer: writer.withdraw_release(EARLIER.name, "worse", NOON),
    "add_reader": lambda writer: writer.add_reader(ANN),
    "revoke_reader": lambda writer: writer.revoke_reader(BEN.name, NOON),
    "add_download": lambda writer: writer.add_download(DOWNLOAD),
}


def begin(writer: StoreWriter) -> None:
    """What the calls need to find."""
    writer.start_run(RUN)
    writer.add_release(EARLIER)
    writer.add_reader(BEN)


def everything(reader: StoreReader) -> list[Any]:
    of_run = [reader.site_rounds(RUN.id), reader.scores(RUN.id), reader.models(RUN.id)]
    return [*of_run, reader.runs(), reader.sites(), reader.releases(), reader.readers(), reader.downloads()]


def test_the_calls_tried_here_are_all_that_a_writer_has() -> None:
    ours = {name for name in vars(StoreWriter) if not name.startswith("_") and name != "close"}
    assert ours == set(CALLS)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_every_call_of_a_writer_outlives_a_restart_of_the_server(server: Server, how: signal.Signals) -> None:
    with StoreWriter(server.new_url(), wait_s=60) as writer, ThreadPoolExecutor(len(CALLS)) as pool:
        begin(writer)
        losses = Losses(writer.engine)
        server.stop(how)
        try:
            done = [pool.submit(call, writer) for call in CALLS.values()]
            losses.wait_for(len(CALLS))
        finally:
            server.start()
        for call in done:
            call.result(timeout=60)

        with StoreReader(writer.engine.url.render_as_string(hide_password=False)) as reader:
            late = SiteRound(run_id=RUN.id, round=2, site="lagos", outcome="late", reason="late", bytes_up=7)
            assert reader.site_rounds(RUN.id) == [ABSENT, late]
            assert (reader.scores(RUN.id), reader.sites()) == ([SCORE], [LAGOS])
            # the calls had no order: the model may have been recorded before it was marked, or after
            assert [replace(model, removed_at=None) for model in reader.models(RUN.id)] == [MODEL]
            assert reader.releases() == [RELEASE, replace(EARLIER, withdrawn_at=NOON, withdrawn_reason="worse")]
            assert reader.readers() == [ANN, replace(BEN, revoked_at=NOON)]
            assert reader.downloads() == [DOWNLOAD]


def test_a_connection_cut_in_mid_transaction_begins_it_anew(server: Server) -> None:
    with StoreWriter(server.new_url(), wait_s=60) as writer:
        writer.start_run(RUN)
        cut: list[int] = []

        @event.listens_for(writer.engine, "before_cursor_execute")
        def cut_once(connection: Connection, _cursor: object, statement: str, *_others: object) -> None:
            if not cut and statement.startswith("INSERT INTO scores"):
                cut.append(backend_of(connection))
                server.run("SELECT pg_terminate_backend(%s, 30000)", *cut)

        writer.record_exchange(RUN.id, 1, [ABSENT], [SCORE])

        assert cut
        with StoreReader(writer.engine.url.render_as_string(hide_password=False)) as reader:
            assert (reader.site_rounds(RUN.id), reader.scores(RUN.id)) == ([ABSENT], [SCORE])


@pytest.mark.parametrize("name", CALLS)
def test_a_connection_cut_after_the_commit_but_before_its_answer_changes_nothing(server: Server, name: str) -> None:
    with StoreWriter(server.new_url(), wait_s=60) as writer:
        begin(writer)
        cut: list[int] = []

        @event.listens_for(writer.engine, "commit")
        def cut_once(connection: Connection) -> None:
            if not cut:
                driver: Any = connection.connection.dbapi_connection
                driver.commit()
                driver.execute("SELECT 1")  # so that a COMMIT is sent, and finds nobody
                cut.append(backend_of(connection))
                server.run("SELECT pg_terminate_backend(%s, 30000)", *cut)

        CALLS[name](writer)

        assert cut
        with StoreReader(writer.engine.url.render_as_string(hide_password=False)) as reader:
            before = everything(reader)
            if name != "finish_run":  # which says when
                CALLS[name](writer)
            assert everything(reader) == before


def backend_of(connection: Connection) -> int:
    driver: Any = connection.connection.dbapi_connection
    pid: int = driver.info.backend_pid
    return pid


def test_a_server_that_stays_away_is_waited_for_only_so_long(server: Server) -> None:
    with StoreWriter(server.new_url(), wait_s=0.3) as writer:
        writer.start_run(RUN)
        tries = Tries(writer.engine)
        server.stop()
        try:
            with pytest.raises(BrainUNetError, match=r"no connection .*Check host, port, user and password, and that it runs"):
                writer.record_model(MODEL)
            assert tries.count >= 2
        finally:
            server.start()

        writer.record_model(MODEL)


class Tries:
    """How often an engine has failed."""

    def __init__(self, engine: Engine) -> None:
        self.count = 0
        event.listen(engine, "handle_error", self._note)

    def _note(self, _context: object) -> None:
        self.count += 1


def test_opening_a_store_does_not_wait_for_a_server_that_is_not_there(server: Server) -> None:
    url = server.new_url().replace(str(server._folder), "/nowhere")

    with pytest.raises(BrainUNetError, match="no connection"):
        StoreWriter(url, wait_s=600)


def test_a_mistake_is_no_loss_of_connection_and_told_at_once(server: Server, tmp_path: Path) -> None:
    for where in (str(tmp_path / "store.sqlite"), server.new_url()):
        engine = open_for_writing(where)
        for mistake, error in (
            ("SELECT 1/0 FROM nowhere", Exception),
            ("INSERT INTO models (run_id) VALUES ('x')", IntegrityError),
        ):
            tries: list[int] = []

            def work(connection: Connection, mistake: str = mistake, tries: list[int] = tries) -> None:
                tries.append(1)
                connection.exec_driver_sql(mistake)

            with pytest.raises(error):
                committed(engine, work, wait_s=600)
            assert len(tries) == 1
        engine.dispose()


def test_a_refusal_of_our_own_passes_through_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store.sqlite") as writer:
        writer.start_run(RUN)

        def work(connection: Connection) -> None:
            connection.exec_driver_sql("DELETE FROM runs")
            raise ConfigError("runs", found="a change of mind")

        with pytest.raises(ConfigError, match="change of mind"):
            committed(writer.engine, work, wait_s=600)

        with StoreReader(tmp_path / "store.sqlite") as reader:
            assert reader.runs() == [RUN]
