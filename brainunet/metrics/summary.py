"""From cases to a site, and from sites to the federation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

from brainunet.labels import Region
from brainunet.records import CaseScore, ScoreRow, SiteScore, Structure

FEWEST_FOR_MEDIAN: Final = 5


def site_score(cases: Sequence[CaseScore], min_cases: int = 1) -> SiteScore:
    """Mean and median per structure and metric over the cases that have a value; no case gives no rows.

    A figure over few cases is nearly a patient's own. So with fewer than ``min_cases`` cases all figures are withheld, and a
    figure that fewer than ``min_cases`` cases have a value for is None. How many cases there are, have a value and have none
    is told all the same: a count says nothing of how well any of them was segmented, and without it the coordinator could
    not tell a withheld figure (``n`` > 0) from one that no case has.

    A median is told of at least ``FEWEST_FOR_MEDIAN`` cases, whatever ``min_cases`` allows: of an odd number of cases it is
    one patient's exact figure, where a mean mixes all of them. Five is the habit of small counts in health data (tools on the
    OMOP data model hide cells of fewer than 5 persons).

    Without a case there is nothing to withhold.
    """
    if 0 < len(cases) < min_cases:
        return SiteScore(cases=len(cases), rows=(), withheld=True)
    fewest = max(1, min_cases)
    values: dict[tuple[Structure, str], list[float]] = {}
    missing: dict[tuple[Structure, str], int] = {}
    for case in cases:
        for row in case.rows:
            key = (row.structure, row.metric)
            values.setdefault(key, []).extend([] if row.value is None else [row.value])
            missing[key] = missing.get(key, 0) + (row.value is None)
    rows = tuple(
        ScoreRow(
            structure=structure,
            metric=metric,
            mean=fmean(found) if len(found) >= fewest else None,
            median=median(found) if len(found) >= max(FEWEST_FOR_MEDIAN, fewest) else None,
            n=len(found),
            missing=missing[structure, metric],
        )
        for (structure, metric), found in values.items()
    )
    return SiteScore(cases=len(cases), rows=rows)


def mean_of(score: SiteScore, metric: str = "dice") -> dict[Structure, float | None]:
    """One metric's mean for each structure; nothing of a site that withholds its figures."""
    return {row.structure: row.mean for row in score.rows if row.metric == metric}


def federation_mean(sites: Iterable[SiteScore], metric: str = "dice") -> dict[Structure, float | None]:
    """One metric's mean over all cases of all sites: each site's mean counts as many times as it has values.

    A structure without a value anywhere is None, never 0, and a figure that its site withholds counts no time at all.
    """
    sums: dict[Structure, tuple[float, int]] = {}
    for site in sites:
        for row in site.rows:
            if row.metric == metric:
                total, n = sums.get(row.structure, (0.0, 0))
                sums[row.structure] = (total, n) if row.mean is None else (total + row.mean * row.n, n + row.n)
    return {structure: (total / n if n else None) for structure, (total, n) in sums.items()}


def best_round(means: Mapping[int, float | None]) -> int | None:
    """The round with the highest figure, the earliest of equals; None if no round has one.

    >>> best_round({0: 0.5, 1: 0.75, 2: 0.75, 3: None})
    1
    """
    known = {number: mean for number, mean in means.items() if mean is not None}
    return max(known, key=lambda number: (known[number], -number), default=None)


def mean_region_dice(sites: Iterable[SiteScore]) -> float | None:
    """Mean of the federation's Dice for ET, TC and WT, of those that have one; None if none has."""
    return _mean_of_regions(federation_mean(sites))


@dataclass(frozen=True)
class Worst:
    """The site that a model serves worst, and its mean."""

    site: str
    value: float


def worst_site(sites: Mapping[str, SiteScore], metric: str = "dice") -> dict[Structure, Worst]:
    """For each structure the site of lowest mean, the first by name of equals, of those that tell one.

    For metrics of which more is better. A structure that no site tells a mean of is left out.
    """
    worst: dict[Structure, Worst] = {}
    for name in sorted(sites):
        for structure, mean in mean_of(sites[name], metric).items():
            if mean is not None and (structure not in worst or mean < worst[structure].value):
                worst[structure] = Worst(name, mean)
    return worst


def worst_region_dice(sites: Mapping[str, SiteScore]) -> float | None:
    """Mean over ET, TC and WT of the Dice at the site where it is lowest; None if no site tells one."""
    return _mean_of_regions({structure: worst.value for structure, worst in worst_site(sites).items()})


def best_round_by_worst(rounds: Mapping[int, Mapping[str, SiteScore]]) -> int | None:
    """The round whose model serves the worst-served sites best, the earliest of equals; None if no round has figures.

    A round in which a site did not answer would look better for it. So only the rounds are compared that have the most
    figures behind them, a site's mean Dice of a region counting as one.

    Args:
        rounds: round -> site -> figures.
    """
    behind = {
        number: sum(mean_of(score).get(region.value) is not None for score in sites.values() for region in Region)
        for number, sites in rounds.items()
    }
    most = max(behind.values(), default=0)
    return best_round({number: worst_region_dice(rounds[number]) for number, n in behind.items() if n == most})


def _mean_of_regions(values: Mapping[Structure, float | None]) -> float | None:
    known = [value for region in Region if (value := values.get(region.value)) is not None]
    return fmean(known) if known else None
