"""The coordinator's side of the store: what each exchange and each model leave behind.

Every call is one transaction, and saying the same thing twice is saying it once: a resumed run repeats the exchange in
which it was interrupted, and its rows take the place of the earlier ones. For the same reason a call may be repeated when
the server goes away under it (see ``committing``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from brainunet.errors import ConfigError
from brainunet_server.store import published
from brainunet_server.store.committing import committed
from brainunet_server.store.opening import WAIT_S, open_for_writing
from brainunet_server.store.problems import shown
from brainunet_server.store.rows import (
    DownloadRow,
    Ending,
    Model,
    ReaderRow,
    ReleaseRow,
    Run,
    Score,
    SiteRound,
    SiteSeen,
    SpendRow,
)
from brainunet_server.store.tables import models, runs, scores, site_rounds, sites, spends

T = TypeVar("T")

# What makes two runs of one id the same run; the other columns say how far it got.
_IDENTITY: Final = ("kind", "parent_id", "site", "strategy", "preset", "norm", "rounds", "seed", "config_sha256")


class StoreWriter:
    """An open store; the tables are made or updated on opening. Threads may share one.

    Args:
        where: a SQLite file (on a local disk), or a URL: ``sqlite:///path``, ``postgresql+psycopg://user@host/database``.
        wait_s: how long a call waits for another writer, and for a PostgreSQL server that is away (opening doesn't: what
            can't be reached then is a mistake, not a restart).
    """

    def __init__(self, where: str | Path, *, wait_s: float = WAIT_S) -> None:
        self.engine = open_for_writing(where, wait_s=wait_s)
        self._wait_s = wait_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.engine.dispose()

    def start_run(self, run: Run) -> Run:
        """Note that a run starts, or goes on if it's there already; returns it as stored (its first ``started_at``).

        Raises:
            ConfigError: another run has this id.
        """

        def work(connection: Connection) -> Run:
            row = connection.execute(select(runs).where(runs.c.id == run.id).with_for_update()).mappings().one_or_none()
            if row is None:
                connection.execute(insert(runs).values(asdict(run)))
                return run
            stored = Run(**row)
            for name in _IDENTITY:
                if getattr(stored, name) != getattr(run, name):
                    raise ConfigError(
                        f"run {run.id}",
                        found=f"{name} {getattr(run, name)}",
                        expected=f"{getattr(stored, name)}, with which it was started",
                        remedy="resume it with the settings it was started with, or start a run of another name",
                    )
            connection.execute(update(runs).where(runs.c.id == run.id).values(status="running", finished_at=None))
            return replace(stored, status="running", finished_at=None)

        return self._committed(work)

    def record_exchange(self, run_id: str, exchange: int, answers: Sequence[SiteRound], figures: Sequence[Score]) -> None:
        """Put down what every site did in exchange ``exchange`` (from 1) and how it scored model ``exchange - 1``.

        Takes the place of all that was put down for this exchange before; either sequence may be empty.

        Raises:
            ConfigError: no such run.
            ValueError: a row of another run or round.
        """
        _require(run_id, exchange, answers)
        _require(run_id, exchange - 1, figures)

        def work(connection: Connection) -> None:
            self._require_run(connection, run_id)
            connection.execute(delete(site_rounds).where(site_rounds.c.run_id == run_id, site_rounds.c.round == exchange))
            connection.execute(delete(scores).where(scores.c.run_id == run_id, scores.c.round == exchange - 1))
            if answers:
                connection.execute(insert(site_rounds), [asdict(row) for row in answers])
            if figures:
                connection.execute(insert(scores), [asdict(row) for row in figures])

        self._committed(work)

    def record_spends(self, rows: Sequence[SpendRow]) -> None:
        """Put down what private training has cost, each row in the place of an earlier one of its run, round and site.

        A row that is there with the same head of the site's ledger stays: a reply that is looked at twice is told once.

        Raises:
            ConfigError: no such run.
        """

        def work(connection: Connection) -> None:
            for row in rows:
                self._require_run(connection, row.run_id)
                here = (spends.c.run_id == row.run_id, spends.c.round == row.round, spends.c.site == row.site)
                known = connection.execute(select(spends.c.ledger_head).where(*here)).scalar_one_or_none()
                if known is not None and known == row.ledger_head:
                    continue
                connection.execute(delete(spends).where(*here))
                connection.execute(insert(spends).values(asdict(row)))

        if rows:
            self._committed(work)

    def mark_late(self, run_id: str, exchange: int, site: str, n_bytes: int, reason: str) -> None:
        """Put down that a site's reply to an earlier exchange came, of ``n_bytes``, after the exchange had ended.

        Only says more of a site that was absent, or of which nothing is known: one that did answer in time (a coordinator
        that was started anew asks twice) stays as it is.

        Raises:
            ConfigError: no such run.
        """
        late = SiteRound(run_id=run_id, round=exchange, site=site, outcome="late", reason=reason, bytes_up=n_bytes)
        row = (site_rounds.c.run_id == run_id, site_rounds.c.round == exchange, site_rounds.c.site == site)

        def work(connection: Connection) -> None:
            self._require_run(connection, run_id)
            outcome = connection.execute(select(site_rounds.c.outcome).where(*row)).scalar_one_or_none()
            if outcome is None:
                connection.execute(insert(site_rounds).values(asdict(late)))
            elif outcome in ("absent", "late"):
                now = {"outcome": late.outcome, "reason": reason, "bytes_up": n_bytes}
                connection.execute(update(site_rounds).where(*row).values(now))

        self._committed(work)

    def record_model(self, model: Model) -> None:
        """Put down that a model was saved, in the place of an earlier one of its round.

        Raises:
            ConfigError: no such run.
        """

        def work(connection: Connection) -> None:
            self._require_run(connection, model.run_id)
            connection.execute(delete(models).where(models.c.run_id == model.run_id, models.c.round == model.round))
            connection.execute(insert(models).values(asdict(model)))

        self._committed(work)

    def mark_removed(self, run_id: str, rounds: Sequence[int], at: datetime | None = None) -> None:
        """Put down that the files of these models are about to be removed (now, if not said); the rows stay.

        Raises:
            ConfigError: no such run.
        """
        gone = {"removed_at": at or datetime.now(UTC)}

        def work(connection: Connection) -> None:
            self._require_run(connection, run_id)
            connection.execute(update(models).where(models.c.run_id == run_id, models.c.round.in_(rounds)).values(gone))

        if rounds:
            self._committed(work)

    def record_sites(self, seen: Sequence[SiteSeen]) -> None:
        """Put down the sites as they are now, each in the place of what was known of it; those not named stay as they were.

        Raises:
            ValueError: a site that is named twice.
        """
        rows = {site.name: asdict(site) for site in sorted(seen, key=lambda site: site.name)}
        if len(rows) < len(seen):
            raise ValueError("a site that is named twice")

        def work(connection: Connection) -> None:
            kind = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            upsert = kind(sites)
            columns = {column.name: upsert.excluded[column.name] for column in sites.columns if not column.primary_key}
            connection.execute(upsert.on_conflict_do_update(index_elements=[sites.c.name], set_=columns), list(rows.values()))

        if rows:
            self._committed(work)

    def rewind(self, run_id: str, last_model_round: int) -> None:
        """Forget what came after model ``last_model_round``, its own scores too: they will be made again.

        Raises:
            ConfigError: no such run.
        """

        def work(connection: Connection) -> None:
            self._require_run(connection, run_id)
            connection.execute(delete(models).where(models.c.run_id == run_id, models.c.round > last_model_round))
            connection.execute(
                delete(site_rounds).where(site_rounds.c.run_id == run_id, site_rounds.c.round > last_model_round)
            )
            connection.execute(delete(scores).where(scores.c.run_id == run_id, scores.c.round >= last_model_round))

        self._committed(work)

    def finish_run(self, run_id: str, status: Ending, at: datetime | None = None) -> None:
        """Note how and when (now, if not said) a run ended.

        Raises:
            ConfigError: no such run.
        """
        ended = {"status": status, "finished_at": at or datetime.now(UTC)}

        def work(connection: Connection) -> None:
            self._require_run(connection, run_id)
            connection.execute(update(runs).where(runs.c.id == run_id).values(ended))

        self._committed(work)

    def add_release(self, release: ReleaseRow) -> None:
        """Put down that a model was published.

        Raises:
            ConfigError: no such run, or another release of this name.
        """

        def work(connection: Connection) -> None:
            self._require_run(connection, release.run_id)
            published.add_release(connection, release)

        self._committed(work)

    def withdraw_release(self, name: str, reason: str, at: datetime | None = None) -> None:
        """Put down that a release may no longer be fetched (from now on, if not said).

        Raises:
            ConfigError: no such release, or one that was withdrawn before.
        """
        moment = at or datetime.now(UTC)
        self._committed(lambda connection: published.withdraw_release(connection, name, reason, moment))

    def add_reader(self, reader: ReaderRow) -> None:
        """Let a reader in, also one whose earlier pass was revoked or has expired.

        Raises:
            ConfigError: a reader of this name whose pass can still be used.
        """
        self._committed(lambda connection: published.add_reader(connection, reader))

    def revoke_reader(self, name: str, at: datetime | None = None) -> None:
        """Put down that a reader's pass is refused (from now on, if not said).

        Raises:
            ConfigError: no such reader, or one that was revoked before.
        """
        moment = at or datetime.now(UTC)
        self._committed(lambda connection: published.revoke_reader(connection, name, moment))

    def add_download(self, download: DownloadRow) -> None:
        """Put down that somebody fetched a release, or a part of it; one row for a moment, a release and a name.

        Raises:
            ConfigError: no such release.
        """
        self._committed(lambda connection: published.add_download(connection, download))

    def _committed(self, work: Callable[[Connection], T]) -> T:
        return committed(self.engine, work, wait_s=self._wait_s)

    def _require_run(self, connection: Connection, run_id: str) -> None:
        # FOR UPDATE: on PostgreSQL two writers of one run take turns, as all writers do on SQLite.
        query = select(runs.c.id).where(runs.c.id == run_id).with_for_update()
        if connection.execute(query).one_or_none() is None:
            raise ConfigError(shown(self.engine.url), found=f"no run {run_id}", expected="one that start_run has noted")


def _require(run_id: str, number: int, rows: Sequence[SiteRound | Score]) -> None:
    for row in rows:
        if (row.run_id, row.round) != (run_id, number):
            kind = type(row).__name__
            raise ValueError(f"{kind} of run {row.run_id}, round {row.round} among those of run {run_id}, round {number}")
