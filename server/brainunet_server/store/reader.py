"""The dashboard's side of the store: it reads, and can do nothing else.

Lists are sorted here and not by the database, whose order of names depends on its locale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from sys import intern
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from sqlalchemy import BigInteger, Select, case, cast, column, func, literal, select, table

from brainunet.errors import ConfigError
from brainunet.metrics.summary import federation_mean
from brainunet.records import ScoreRow, SiteScore, Structure
from brainunet_server.store.opening import WAIT_S, address, open_for_reading
from brainunet_server.store.problems import explained, shown
from brainunet_server.store.rows import (
    DownloadRow,
    Extent,
    Figure,
    Kind,
    Model,
    Outcome,
    ReaderRow,
    ReleaseRow,
    Run,
    Score,
    SiteRound,
    SiteSeen,
    SiteState,
    SpendRow,
    Status,
)
from brainunet_server.store.schema import VERSION_TABLE
from brainunet_server.store.tables import downloads, models, readers, releases, runs, scores, site_rounds, sites, spends

__all__ = [
    "DownloadRow",
    "Extent",
    "Figure",
    "Kind",
    "Model",
    "Outcome",
    "ReaderRow",
    "ReleaseRow",
    "Run",
    "Score",
    "SiteRound",
    "SiteSeen",
    "SiteState",
    "SpendRow",
    "Status",
    "StoreReader",
    "address",
    "dice_by_round",
    "site_scores",
]

MOST_NAMED: Final = 10  # runs in a message

_LATEST_ROUND: Final = 1_000_000
# One query for good: alembic makes a new one each time, and SQLAlchemy keeps what it has compiled of each.
_VERSION: Final[Select[str]] = select(column("version_num")).select_from(table(VERSION_TABLE))

R = TypeVar("R", Run, SiteRound, Score, Model, SiteSeen, SpendRow, ReleaseRow, ReaderRow, DownloadRow)


class StoreReader:
    """An open store, read-only. Threads may share one; every call sees what is committed by then.

    Args:
        where: as for the writer: a SQLite file, or a URL.
        wait_s: how long to wait for a lock.
    """

    def __init__(self, where: str | Path, *, wait_s: float = WAIT_S) -> None:
        self.engine = open_for_reading(where, wait_s=wait_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.engine.dispose()

    def runs(self) -> list[Run]:
        """All runs, the oldest first."""
        return sorted(self._rows(Run, select(runs)), key=lambda run: (run.started_at, run.id))

    def run(self, run_id: str) -> Run:
        """One run.

        Raises:
            ConfigError: no such run, with the nearest name and the latest ones that there are.
        """
        found = self._rows(Run, select(runs).where(runs.c.id == run_id))
        if not found:
            raise self._no_run(run_id, [run.id for run in self.runs()])
        return found[0]

    def latest_run(self, kind: Kind) -> Run:
        """The run of a kind that was begun last.

        Raises:
            ConfigError: none was begun yet.
        """
        known = [run for run in self.runs() if run.kind == kind]
        if not known:
            raise ConfigError(shown(self.engine.url), found=f"no run of a {kind} yet", expected="one that has begun")
        return known[-1]

    def site_rounds(self, run_id: str, after_round: int = 0) -> list[SiteRound]:
        """What each site did in the exchanges after ``after_round``, by round and site."""
        query = select(site_rounds).where(site_rounds.c.run_id == run_id, site_rounds.c.round > after_round)
        return sorted(self._rows(SiteRound, query), key=lambda row: (row.round, row.site))

    def scores(self, run_id: str, after_round: int = -1, metric: str | None = None) -> list[Score]:
        """The figures of the models after ``after_round``, by round, site, structure and metric."""
        query = select(scores).where(scores.c.run_id == run_id, scores.c.round > after_round)
        if metric is not None:
            query = query.where(scores.c.metric == metric)
        return sorted(self._rows(Score, query), key=lambda row: (row.round, row.site, row.structure, row.metric))

    def figures(self, run_id: str, metric: str, after_round: int = -1) -> list[Figure]:
        """One metric's figures of the models after ``after_round``, by round, site and structure; see :class:`Figure`."""
        wanted = (scores.c.run_id == run_id, scores.c.metric == metric, scores.c.round > after_round)
        columns = (scores.c.round, scores.c.site, scores.c.structure, scores.c.mean, scores.c.median, scores.c.n)
        with explained(self.engine.url), self.engine.connect() as connection:
            rows = connection.execute(select(*columns, scores.c.missing).where(*wanted))
            found = [Figure(row[0], intern(row[1]), intern(row[2]), *row[3:]) for row in rows]
        return sorted(found, key=lambda row: row[:3])

    def figures_of_round(self, run_id: str, number: int) -> list[tuple[str, Figure]]:
        """Every metric's figures of one model, each with its metric, by metric, site and structure."""
        columns = (
            scores.c.round,
            scores.c.site,
            scores.c.structure,
            scores.c.mean,
            scores.c.median,
            scores.c.n,
            scores.c.missing,
        )
        query = select(scores.c.metric, *columns).where(scores.c.run_id == run_id, scores.c.round == number)
        with explained(self.engine.url), self.engine.connect() as connection:
            found = [(row[0], Figure(*row[1:])) for row in connection.execute(query)]
        return sorted(found, key=lambda row: (row[0], row[1].site, row[1].structure))

    def metrics(self, run_id: str) -> list[str]:
        """The metrics of which a run has figures, by name."""
        with explained(self.engine.url), self.engine.connect() as connection:
            return sorted(connection.execute(select(scores.c.metric).where(scores.c.run_id == run_id).distinct()).scalars())

    def extent_of_figures(self, run_id: str, metric: str, last_round: int = _LATEST_ROUND) -> Extent:
        """What the figures up to model ``last_round`` add up to."""
        wanted = (scores.c.run_id == run_id, scores.c.metric == metric, scores.c.round <= last_round)
        # whole numbers: their sum does not depend on the order in which a database adds them
        total = func.sum(cast(func.coalesce(scores.c.mean, -1) * 1e6, BigInteger) + scores.c.n)
        return self._extent(select(func.count(), func.max(scores.c.round), total).where(*wanted))

    def extent_of_site_rounds(self, run_id: str, last_round: int = _LATEST_ROUND) -> Extent:
        """What the exchanges up to ``last_round`` add up to; a reply that came late after all changes it."""
        wanted = (site_rounds.c.run_id == run_id, site_rounds.c.round <= last_round)
        seconds = cast(func.coalesce(site_rounds.c.seconds, -1) * 1e3, BigInteger)
        late = case((site_rounds.c.outcome == "late", literal(1)), else_=literal(0))
        total = func.sum(seconds + late + site_rounds.c.bytes_up + site_rounds.c.bytes_down)
        return self._extent(select(func.count(), func.max(site_rounds.c.round), total).where(*wanted))

    def models(self, run_id: str) -> list[Model]:
        """The saved models, by round."""
        return sorted(self._rows(Model, select(models).where(models.c.run_id == run_id)), key=lambda model: model.round)

    def spends(self, run_id: str | None = None, *, since: datetime | None = None) -> list[SpendRow]:
        """What private training has cost, by the time it was told; of all runs or of one, from ``since`` on or all."""
        query = select(spends) if run_id is None else select(spends).where(spends.c.run_id == run_id)
        query = query if since is None else query.where(spends.c.told_at >= since)
        return sorted(self._rows(SpendRow, query), key=lambda row: (row.told_at, row.run_id, row.round, row.site))

    def ledger_heads(self) -> dict[str, str]:
        """Site -> the head of its ledger of spending that it told last, over all runs."""
        return {row.site: row.ledger_head for row in self.spends() if row.ledger_head}

    def count_of_spends(self, run_id: str) -> int:
        return self._count(select(func.count()).where(spends.c.run_id == run_id))

    def sites_by_arrival(self) -> list[str]:
        """Every site that ever took part or was enrolled, those of earlier runs first, then by name: none changes its place."""
        began = func.min(runs.c.started_at)
        took_part = select(site_rounds.c.site, began).join(runs, runs.c.id == site_rounds.c.run_id).group_by(site_rounds.c.site)
        with explained(self.engine.url), self.engine.connect() as connection:
            names = [name for _, name in sorted((row[1], row[0]) for row in connection.execute(took_part))]
            enrolled = sorted(connection.execute(select(sites.c.name)).scalars())
        return [*names, *(name for name in enrolled if name not in set(names))]

    def sites(self) -> list[SiteSeen]:
        """The federation's sites as the coordinator last saw them, by name; none of a simulation."""
        return sorted(self._rows(SiteSeen, select(sites)), key=lambda site: site.name)

    def releases(self) -> list[ReleaseRow]:
        """The published models, the newest first; also those that were withdrawn."""
        found = self._rows(ReleaseRow, select(releases))
        return sorted(found, key=lambda release: (release.published_at, release.name), reverse=True)

    def readers(self) -> list[ReaderRow]:
        """Who may fetch them beside the sites, by name; also those who were revoked or whose passes have expired."""
        return sorted(self._rows(ReaderRow, select(readers)), key=lambda reader: reader.name)

    def downloads(self, release: str | None = None) -> list[DownloadRow]:
        """Each time that a release (None: any) was fetched, the oldest first."""
        query = select(downloads) if release is None else select(downloads).where(downloads.c.release == release)
        found = self._rows(DownloadRow, query)
        return sorted(found, key=lambda download: (download.at, download.release, download.kind, download.who))

    def count_of_downloads(self) -> int:
        return self._count(select(func.count()).select_from(downloads))

    def download_counts(self) -> dict[str, int]:
        """How often each release was fetched to its end: name -> times, 0 of one that nobody has fetched."""
        ends = func.count().filter(downloads.c.whole)
        query = select(releases.c.name, ends).outerjoin(downloads, downloads.c.release == releases.c.name)
        with explained(self.engine.url), self.engine.connect() as connection:
            rows = connection.execute(query.group_by(releases.c.name)).all()
        return dict(sorted((str(row[0]), int(row[1])) for row in rows))

    def version(self) -> str | None:
        """Of the tables, as they are now: another than on opening means that somebody has put a new store in its place."""
        with explained(self.engine.url), self.engine.connect() as connection:
            version: str | None = connection.execute(_VERSION).scalar_one_or_none()
            return version

    def _count(self, query: Select[int]) -> int:
        with explained(self.engine.url), self.engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def _extent(self, query: Select[Any, Any, Any]) -> Extent:
        with explained(self.engine.url), self.engine.connect() as connection:
            count, last, total = connection.execute(query).one()
        return Extent(count, last, int(total or 0))

    def _no_run(self, run_id: str, known: Sequence[str]) -> ConfigError:
        close = get_close_matches(run_id, known, n=1)
        return ConfigError(
            shown(self.engine.url),
            found=f"no run {run_id!r}" + (f" (did you mean {close[0]}?)" if close else ""),
            expected=f"one of its runs: {', '.join(known[-MOST_NAMED:])}" if known else "a run: none has begun yet",
        )

    def _rows(self, kind: type[R], query: Select[Any]) -> list[R]:
        with explained(self.engine.url), self.engine.connect() as connection:
            return [kind(**row) for row in connection.execute(query).mappings()]


def site_scores(rows: Iterable[Score]) -> dict[int, dict[str, SiteScore]]:
    """Score rows as records: model round -> site -> figures."""
    grouped: dict[int, dict[str, list[ScoreRow]]] = {}
    for row in rows:
        figure = ScoreRow(
            structure=row.structure, metric=row.metric, mean=row.mean, median=row.median, n=row.n, missing=row.missing
        )
        grouped.setdefault(row.round, {}).setdefault(row.site, []).append(figure)
    return {
        number: {
            site: SiteScore(cases=max(figure.n + figure.missing for figure in figures), rows=tuple(figures))
            for site, figures in sites.items()
        }
        for number, sites in grouped.items()
    }


def dice_by_round(store: StoreReader, run_id: str, structure: Structure) -> list[dict[str, Any]]:
    """A row for each round's model: ``sites`` has a site's mean and n, None, or "withheld"; ``all`` is the mean of all cases.

    Raises:
        ConfigError: no such run.
    """
    store.run(run_id)
    withheld = {(row.round - 1, row.site) for row in store.site_rounds(run_id) if row.withheld}
    by_round = site_scores(store.scores(run_id, metric="dice"))
    rows = []
    for number in sorted(set(by_round) | {number for number, _ in withheld}):
        scored = by_round.get(number, {})
        sites: dict[str, Any] = {
            site: next(({"mean": row.mean, "n": row.n} for row in score.rows if row.structure == structure), None)
            for site, score in scored.items()
        }
        sites |= {site: "withheld" for other, site in withheld if other == number}
        mean = federation_mean(scored.values()).get(structure)
        rows.append({"round": number, "sites": dict(sorted(sites.items())), "all": mean})
    return rows
