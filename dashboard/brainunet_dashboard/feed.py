"""What has been read from the store so far: a look for what is new fetches only that, whoever of the open pages asks.

Rows of a round never change once the next one is complete, but for three things: a reply that comes late after all, a run that
went back after a damaged model, and a run that was removed. So each look asks the database what the rows up to the round before
the last add up to (two numbers travel), and reads them anew only if that is not what it was. The last known round is always
read again: it may have grown.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from brainunet.errors import BrainUNetError
from brainunet_server.store.reader import (
    DownloadRow,
    Extent,
    Figure,
    Model,
    ReaderRow,
    ReleaseRow,
    Run,
    SiteRound,
    SiteSeen,
    SpendRow,
    StoreReader,
)

MOST_ROWS: Final = 1_000_000  # kept for all pages and runs together: some 250 MB
FRESH_S: Final = 1.0  # the parts of a page, and pages that are open at once, share one look
WAIT_S: Final = 2.0  # for a lock: longer, and people would take a page for dead

T = TypeVar("T")


class _OfARound(Protocol):
    @property
    def round(self) -> int: ...


Row = TypeVar("Row", bound=_OfARound)


@dataclass
class _Kept:
    rows: list[Any]
    looked_at: float
    extent: Extent | int | None = None
    """Of the rows up to the round before the last one; a count, where nothing else is needed."""


class Feed:
    """The store as the pages see it; threads share one.

    Args:
        database: path or URL.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        database: str | Path,
        *,
        wait_s: float = WAIT_S,
        fresh_s: float = FRESH_S,
        most_rows: int = MOST_ROWS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._wait_s, self._fresh_s, self._most_rows = database, wait_s, fresh_s, most_rows
        self._clock = clock
        self._lock = threading.RLock()
        self._kept: OrderedDict[tuple[str, ...], _Kept] = OrderedDict()
        self._reader: StoreReader | None = None
        self._version: str | None = None
        self._version_at = -1e9
        self.rows_fetched = 0

    def close(self) -> None:
        with self._lock:
            if self._reader is not None:
                self._reader.close()
            self._reader = None

    @property
    def rows_kept(self) -> int:
        return sum(len(kept.rows) for kept in self._kept.values())

    def runs(self) -> Sequence[Run]:
        return self._whole(("runs",), lambda reader: reader.runs())

    def site_rounds(self, run_id: str) -> Sequence[SiteRound]:
        """By round and site."""
        return self._growing(
            ("site_rounds", run_id),
            lambda reader, after: reader.site_rounds(run_id, after),
            lambda reader, last: reader.extent_of_site_rounds(run_id, last),
        )

    def figures(self, run_id: str, metric: str = "dice") -> Sequence[Figure]:
        """By round, site and structure."""
        return self._growing(
            ("figures", run_id, metric),
            lambda reader, after: reader.figures(run_id, metric, after),
            lambda reader, last: reader.extent_of_figures(run_id, metric, last),
        )

    def figures_of_round(self, run_id: str, number: int) -> Mapping[str, Sequence[Figure]]:
        """Metric -> the figures of one model; they are few, so they are read each time, and nothing of them is kept."""
        found: dict[str, list[Figure]] = {}
        with self._lock:
            for metric, row in self._fetched(self._ask(lambda reader: reader.figures_of_round(run_id, number))):
                found.setdefault(metric, []).append(row)
        return found

    def metrics(self, run_id: str) -> Sequence[str]:
        return self._whole(("metrics", run_id), lambda reader: reader.metrics(run_id))

    def models(self, run_id: str) -> Sequence[Model]:
        return self._whole(("models", run_id), lambda reader: reader.models(run_id))

    def spends(self, run_id: str) -> Sequence[SpendRow]:
        """By the time they were told."""
        with self._lock:
            kept = self._fresh(("spends", run_id))
            if kept is None:
                kept = self._put(("spends", run_id), self._ask(lambda reader: self._new_spends(reader, run_id)), None)
            return kept.rows

    def sites(self) -> Sequence[SiteSeen]:
        return self._whole(("sites",), lambda reader: reader.sites())

    def sites_by_arrival(self) -> Sequence[str]:
        return self._whole(("arrival",), lambda reader: reader.sites_by_arrival())

    def releases(self) -> Sequence[ReleaseRow]:
        return self._whole(("releases",), lambda reader: reader.releases())

    def readers(self) -> Sequence[ReaderRow]:
        return self._whole(("readers",), lambda reader: reader.readers())

    def downloads(self) -> Sequence[DownloadRow]:
        """The oldest first; a row is never changed, so as many of them as before are those of before."""
        with self._lock:
            kept = self._fresh(("downloads",))
            if kept is None:
                before = self._kept.get(("downloads",))
                count = self._ask(lambda reader: reader.count_of_downloads())
                same = before is not None and before.extent == count
                rows = before.rows if before and same else self._fetched(self._ask(lambda reader: reader.downloads()))
                kept = self._put(("downloads",), rows, count)
            return kept.rows

    def _whole(self, key: tuple[str, ...], read: Callable[[StoreReader], list[T]]) -> Sequence[T]:
        """Small tables whose rows change."""
        with self._lock:
            kept = self._fresh(key)
            if kept is None:
                kept = self._put(key, self._fetched(self._ask(read)), None)
            return kept.rows

    def _growing(
        self,
        key: tuple[str, ...],
        read: Callable[[StoreReader, int], list[Row]],
        extent: Callable[[StoreReader, int], Extent],
    ) -> Sequence[Row]:
        with self._lock:
            kept = self._fresh(key)
            if kept is None:
                rows, known = self._ask(lambda reader: self._grown(reader, self._kept.get(key), read, extent))
                kept = self._put(key, rows, known)
            return kept.rows

    def _grown(
        self,
        reader: StoreReader,
        kept: _Kept | None,
        read: Callable[[StoreReader, int], list[Row]],
        extent: Callable[[StoreReader, int], Extent],
    ) -> tuple[list[Row], Extent | None]:
        earlier: list[Row] = kept.rows if kept else []
        known = kept.extent if kept and isinstance(kept.extent, Extent) else None
        if earlier and extent(reader, earlier[-1].round - 1) == known:
            before = earlier[-1].round - 1
            new: list[Row] = self._fetched(read(reader, before))
            if new == earlier[-len(new) :]:
                return earlier, known
            rows = [*(row for row in earlier if row.round <= before), *new]
        else:
            rows = self._fetched(read(reader, -1))
        return rows, extent(reader, rows[-1].round - 1) if rows else None

    def _new_spends(self, reader: StoreReader, run_id: str) -> list[SpendRow]:
        kept = self._kept.get(("spends", run_id))
        by_place = {(row.round, row.site): row for row in kept.rows} if kept else {}
        since = kept.rows[-1].told_at if kept and kept.rows else None
        new = self._fetched(reader.spends(run_id, since=since))
        by_place |= {(row.round, row.site): row for row in new}
        if len(by_place) != reader.count_of_spends(run_id):
            return self._fetched(reader.spends(run_id))
        return sorted(by_place.values(), key=lambda row: (row.told_at, row.round, row.site))

    def _ask(self, question: Callable[[StoreReader], T]) -> T:
        """The answer of the store as it is now: opened anew after a problem, or when it is no longer the one that was opened.

        Raises:
            BrainUNetError: what is wrong with it.
        """
        try:
            now = self._clock()
            if self._reader is not None and now - self._version_at >= self._fresh_s:
                if self._has_changed(self._reader):
                    self._forget()
                self._version_at = now
            if self._reader is None:
                self._reader = StoreReader(self._database, wait_s=self._wait_s)
                self._version, self._version_at = self._reader.version(), now
            return question(self._reader)
        except BrainUNetError:
            self._forget()
            raise

    def _has_changed(self, reader: StoreReader) -> bool:
        """Whether another store, or none, is in the place of the one that was opened: opening it again says which."""
        try:
            return reader.version() != self._version
        except BrainUNetError:
            return True

    def _forget(self) -> None:
        self.close()
        self._kept.clear()

    def _fetched(self, rows: list[T]) -> list[T]:
        self.rows_fetched += len(rows)
        return rows

    def _fresh(self, key: tuple[str, ...]) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is None or self._clock() - kept.looked_at >= self._fresh_s:
            return None
        self._kept.move_to_end(key)
        return kept

    def _put(self, key: tuple[str, ...], rows: list[Any], extent: Extent | int | None) -> _Kept:
        kept = self._kept[key] = _Kept(rows, self._clock(), extent)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and self.rows_kept > self._most_rows:
            self._kept.popitem(last=False)
        return kept
