"""Figures of models by round: lines, spread, what is gained and lost. Only what sites tell: what is withheld stays so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, quantiles
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from brainunet.labels import Region
from brainunet.metrics.summary import best_round
from brainunet_server.store.reader import Figure, SiteRound

ROUNDS_OF_A_FALL: Final = 3

WITHHELD: Final = "withheld: too few cases"
NO_CASE: Final = "no case has a value"


@dataclass(frozen=True)
class Metric:
    """How a metric is called, in which unit, and which end of it is good."""

    name: str
    title: str
    unit: str
    higher_is_better: bool
    digits: int = 3


METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("dice", "Dice", "", True),
            Metric("hd95_mm", "HD95", "mm", False, 1),
            Metric("nsd_0_5mm", "NSD at 0.5 mm", "", True),
            Metric("nsd_1mm", "NSD at 1 mm", "", True),
            Metric("lesion_dice", "lesion-wise Dice", "", True),
            Metric("lesion_hd95_mm", "lesion-wise HD95", "mm", False, 1),
        )
    }
)


def metric_of(name: str) -> Metric:
    """Also of one that a newer program has told: higher is taken for better.

    >>> metric_of("hd95_mm").unit
    'mm'
    """
    return METRICS.get(name, Metric(name, name, "", True))


@dataclass(frozen=True)
class Point:
    """A model's figure at a site: a value and the ``n`` cases behind it, or why there is none."""

    round: int
    value: float | None
    n: int
    why: str = ""


Line: TypeAlias = Sequence[Point]


@dataclass(frozen=True)
class Lines:
    """One metric of one structure by round: a line for each site, by name, and the mean over all cases of all sites."""

    sites: Mapping[str, Line]
    overall: Line

    @property
    def rounds(self) -> Sequence[int]:
        return sorted({point.round for line in self.sites.values() for point in line})

    @property
    def latest(self) -> int | None:
        """The last round of which any site tells a value."""
        return max((point.round for point in self.overall if point.value is not None), default=None)

    @property
    def last(self) -> int:
        """The latest round, or the last of which sites tell at least that they tell none; 0 of nothing."""
        return max(self.rounds, default=0) if self.latest is None else self.latest

    def at(self, number: int | None) -> Mapping[str, Point]:
        """Site -> its point of a round, of those that have one."""
        return {site: point for site, line in self.sites.items() for point in line if point.round == number}


def lines_of(figures: Iterable[Figure], exchanges: Iterable[SiteRound], structure: str) -> Lines:
    """The lines of a structure; without a row there are none.

    Exchange k scores model k - 1, so a site that withheld its figures in exchange k has a point without a value there.
    """
    points: dict[str, dict[int, Point]] = {}
    sums: dict[int, tuple[float, int]] = {}
    for row in figures:
        if row.structure != structure:
            continue
        why = "" if row.mean is not None else WITHHELD if row.n else NO_CASE
        points.setdefault(row.site, {})[row.round] = Point(row.round, row.mean, row.n, why)
        total, n = sums.get(row.round, (0.0, 0))
        if row.mean is not None:
            total, n = total + row.mean * row.n, n + row.n
        sums[row.round] = (total, n)
    for exchange in exchanges:
        if exchange.withheld:
            number, n = exchange.round - 1, exchange.cases_validation or 0
            points.setdefault(exchange.site, {})[number] = Point(number, None, n, WITHHELD)
            sums.setdefault(number, (0.0, 0))
    overall = [Point(k, total / n if n else None, n, "" if n else WITHHELD) for k, (total, n) in sorted(sums.items())]
    return Lines({site: [own[k] for k in sorted(own)] for site, own in sorted(points.items())}, overall)


def falling(lines: Lines, higher_is_better: bool = True, times: int = ROUNDS_OF_A_FALL) -> list[str]:
    """Sites whose last ``times`` figures were each worse than the one before, up to the latest round."""
    sign = 1 if higher_is_better else -1
    found = []
    for site, line in lines.sites.items():
        last = [(point.round, sign * point.value) for point in line if point.value is not None][-times - 1 :]
        if len(last) == times + 1 and last[-1][0] == lines.latest:
            values = [value for _, value in last]
            if all(after < before for before, after in pairwise(values)):
                found.append(site)
    return found


@dataclass(frozen=True)
class Spread:
    """How far apart the sites are in one round; None of both where fewer than two tell a value.

    ``n_worst`` cases are behind the worst one's.
    """

    worst: tuple[str, float] | None
    best: tuple[str, float] | None
    n_worst: int = 0

    @property
    def width(self) -> float | None:
        return None if self.worst is None or self.best is None else abs(self.best[1] - self.worst[1])


def spread(lines: Lines, number: int | None, higher_is_better: bool = True) -> Spread:
    """The worst and the best site of a round, the first by name of equals."""
    told = {site: point.value for site, point in lines.at(number).items() if point.value is not None}
    if len(told) < 2:
        return Spread(None, None)
    ends = (min, max) if higher_is_better else (max, min)
    worst, best = (end(told, key=lambda site: told[site]) for end in ends)
    return Spread((worst, told[worst]), (best, told[best]), lines.at(number)[worst].n)


def latest_table(lines: Lines) -> list[dict[str, Any]]:
    """A row for each site: its figure of the last round, and what changed since the round before and since the start.

    A site that tells no figure of one of these two has no change since then.
    """
    rows = []
    for site, line in lines.sites.items():
        values = {point.round: point.value for point in line}
        now = next((point for point in line if point.round == lines.last), None)
        value = now.value if now else None
        rows.append(
            {
                "site": site,
                "round": lines.last,
                "value": value,
                "n": now.n if now else None,
                "since_last": difference(value, values.get(lines.latest - 1)) if lines.latest else None,
                "since_start": difference(value, values.get(0)) if lines.latest else None,
                "note": (now.why if now else "absent"),
            }
        )
    return rows


def distribution(lines: Lines) -> list[dict[str, Any]]:
    """A row for each round: how the sites that tell a value lie, each counting once."""
    values: dict[int, list[float]] = {}
    for line in lines.sites.values():
        for point in line:
            if point.value is not None:
                values.setdefault(point.round, []).append(point.value)
    rows = []
    for number, found in sorted(values.items()):
        low, middle, high = quantiles(found, n=4, method="inclusive") if len(found) > 1 else (found[0],) * 3
        rows.append(
            {
                "round": number,
                "sites": len(found),
                "least": min(found),
                "q1": low,
                "median": middle,
                "q3": high,
                "most": max(found),
            }
        )
    return rows


def means_of_regions(figures: Sequence[Figure]) -> dict[int, float | None]:
    """Round -> the mean over ET, TC and WT of their means over all cases, as a federation's best round is chosen by."""
    by_region = [{p.round: p.value for p in lines_of(figures, (), region).overall} for region in Region]
    rounds = sorted({number for means in by_region for number in means})
    known = {number: [m[number] for m in by_region if m.get(number) is not None] for number in rounds}
    return {number: fmean(v for v in values if v is not None) if values else None for number, values in known.items()}


def best_and_worst_rounds(figures: Sequence[Figure]) -> tuple[int | None, int | None]:
    """The rounds of highest and lowest mean Dice over the regions, the earliest of equals."""
    means = means_of_regions(figures)
    return best_round(means), best_round({number: None if mean is None else -mean for number, mean in means.items()})


def metric_table(
    figures: Mapping[str, Sequence[Figure]], number: int, structures: Iterable[str] = tuple(Region)
) -> list[dict[str, Any]]:
    """A row for each site and structure of a round, with all its metrics; None of what nobody told."""
    wanted = set(structures)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for metric, found in figures.items():
        for row in found:
            if row.round == number and row.structure in wanted:
                place = rows.setdefault(
                    (row.site, row.structure),
                    {"site": row.site, "structure": row.structure, "n": row.n, "missing": row.missing},
                )
                place[metric], place[f"{metric} median"] = row.mean, row.median
                place["n"], place["missing"] = max(place["n"], row.n), max(place["missing"], row.missing)
    return [rows[key] for key in sorted(rows)]


def gains(lines: Lines, alone: Mapping[str, Line]) -> list[dict[str, Any]]:
    """A row for each site: the model it began with, the latest one, and the last that the site trained ``alone``."""
    latest, start = lines.at(lines.latest), lines.at(0)
    rows = []
    for site in lines.sites:
        now = latest[site].value if site in latest else None
        first = start[site].value if site in start else None
        own = [point.value for point in alone.get(site, ()) if point.value is not None]
        last_alone = own[-1] if own else None
        rows.append(
            {
                "site": site,
                "n": latest[site].n if site in latest else None,
                "start": first,
                "latest": now,
                "gain": difference(now, first) if lines.latest else None,
                "alone": last_alone,
                "gain_over_alone": difference(now, last_alone),
            }
        )
    return rows


def compared(one: Lines, other: Lines) -> list[dict[str, Any]]:
    """A row for each round that either of two runs has: both means, and how much the other one's is higher."""
    a, b = ({point.round: point for point in lines.overall} for lines in (one, other))
    rows = []
    for number in sorted(a.keys() | b.keys()):
        first, second = (of[number].value if number in of else None for of in (a, b))
        rows.append({"round": number, "one": first, "other": second, "difference": difference(second, first)})
    return rows


def difference(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before
