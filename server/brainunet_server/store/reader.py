"""The dashboard's side of the store: it reads, and can do nothing else.

Lists are sorted here and not by the database, whose order of names depends on its locale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from sqlalchemy import Select, func, select

from brainunet.errors import ConfigError
from brainunet.metrics.summary import federation_mean
from brainunet.records import ScoreRow, SiteScore, Structure
from brainunet_server.store.opening import WAIT_S, open_for_reading
from brainunet_server.store.problems import explained, shown
from brainunet_server.store.rows import (
    DownloadRow,
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
from brainunet_server.store.tables import downloads, models, readers, releases, runs, scores, site_rounds, sites, spends

__all__ = [
    "DownloadRow",
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
    "dice_by_round",
    "site_scores",
]

MOST_NAMED: Final = 10  # runs in a message

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

    def models(self, run_id: str) -> list[Model]:
        """The saved models, by round."""
        return sorted(self._rows(Model, select(models).where(models.c.run_id == run_id)), key=lambda model: model.round)

    def spends(self, run_id: str | None = None) -> list[SpendRow]:
        """What private training has cost, by the time it was told; of all runs if none is named."""
        query = select(spends) if run_id is None else select(spends).where(spends.c.run_id == run_id)
        return sorted(self._rows(SpendRow, query), key=lambda row: (row.told_at, row.run_id, row.round, row.site))

    def ledger_heads(self) -> dict[str, str]:
        """Site -> the head of its ledger of spending that it told last, over all runs."""
        return {row.site: row.ledger_head for row in self.spends() if row.ledger_head}

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

    def download_counts(self) -> dict[str, int]:
        """How often each release was fetched to its end: name -> times, 0 of one that nobody has fetched."""
        ends = func.count().filter(downloads.c.whole)
        query = select(releases.c.name, ends).outerjoin(downloads, downloads.c.release == releases.c.name)
        with explained(self.engine.url), self.engine.connect() as connection:
            rows = connection.execute(query.group_by(releases.c.name)).all()
        return dict(sorted((str(row[0]), int(row[1])) for row in rows))

    def latest_round(self, run_id: str) -> int | None:
        """The round of the newest saved model; None while there is none."""
        query = select(func.max(models.c.round)).where(models.c.run_id == run_id)
        with explained(self.engine.url), self.engine.connect() as connection:
            newest: int | None = connection.execute(query).scalar_one()
            return newest

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
