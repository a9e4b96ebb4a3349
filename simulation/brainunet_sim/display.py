"""A simulation as a person watches it: a table of sites and rounds that fills up, and what is being done right now."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from brainunet.labels import Region
from brainunet.metrics.summary import federation_mean, mean_of
from brainunet_client.site import Site
from brainunet_server.round_results import RoundResult

REGION: Final = Region.WT.value


class Display:
    """Draws on stderr; a plain line per round where that is no terminal, nothing when ``quiet``."""

    def __init__(self, run_id: str, rounds: int, *, quiet: bool) -> None:
        self._run_id, self._rounds, self._quiet = run_id, rounds, quiet
        self._console = Console(stderr=True)
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=self._console)
        self._now: TaskID = self._bar.add_task("starting", total=None)
        self._table: dict[str, dict[int, float | None]] = {}
        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=4)
        self._drawing = self._console.is_terminal and not quiet

    def __enter__(self) -> Self:
        if self._drawing:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._drawing:
            self._bar.update(self._now, visible=False)
            self._live.stop()

    def progress(self, what: str, done: int, total: int) -> None:
        self._bar.update(self._now, description=what, completed=done, total=total)

    def sites(self, sites: Sequence[Site]) -> None:
        self._say("; ".join(f"{s.name}: {len(s.train)} cases to train, {len(s.validation)} to score" for s in sites))

    def round(self, run_id: str, result: RoundResult) -> None:
        """Put down the scores of the model that this exchange began with."""
        model = result.exchange - 1
        alone = run_id != self._run_id
        scores = {site.site: site.score for site in result.sites if site.score is not None}
        for site, score in scores.items():
            self._table.setdefault(f"{site} alone" if alone else site, {})[model] = mean_of(score).get(REGION)
        if not alone:
            self._table.setdefault("all cases", {})[model] = federation_mean(scores.values()).get(REGION)
        figures = ", ".join(f"{site} {_figure(mean_of(score).get(REGION))}" for site, score in scores.items())
        who = f"{next(iter(scores), '')} alone, " if alone else ""
        self._say(f"{who}model of round {model} of {self._rounds}: {REGION} Dice {figures}")

    def _say(self, text: str) -> None:
        if not self._drawing and not self._quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _draw(self) -> Group:
        table = Table(title=f"{REGION} Dice on each site's validation cases, by round", title_justify="left")
        table.add_column("site")
        room = max(1, (self._console.width - max(map(len, self._table), default=0) - 4) // 8)  # a figure in its frame takes 8
        shown = sorted({number for row in self._table.values() for number in row})[-room:]
        for number in shown:
            table.add_column("start" if number == 0 else str(number), justify="right")
        for name, row in self._table.items():
            table.add_row(name, *(_figure(row.get(number)) if number in row else "" for number in shown))
        return Group(table, self._bar) if self._table else Group(self._bar)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
