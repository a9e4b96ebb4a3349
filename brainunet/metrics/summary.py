"""From cases to a site, and from sites to the federation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

from brainunet.labels import Region
from brainunet.records import CaseScore, ScoreRow, SiteScore, Structure


def site_score(cases: Sequence[CaseScore]) -> SiteScore:
    """Mean and median per structure and metric over the cases that have a value; no case gives no rows."""
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
            mean=fmean(found) if found else None,
            median=median(found) if found else None,
            n=len(found),
            missing=missing[structure, metric],
        )
        for (structure, metric), found in values.items()
    )
    return SiteScore(cases=len(cases), rows=rows)


def mean_of(score: SiteScore, metric: str = "dice") -> dict[Structure, float | None]:
    """One metric's mean for each structure."""
    return {row.structure: row.mean for row in score.rows if row.metric == metric}


def federation_mean(sites: Iterable[SiteScore], metric: str = "dice") -> dict[Structure, float | None]:
    """One metric's mean over all cases of all sites: each site's mean counts as many times as it has values.

    A structure without a value anywhere is None, never 0.
    """
    sums: dict[Structure, tuple[float, int]] = {}
    for site in sites:
        for row in site.rows:
            if row.metric == metric:
                total, n = sums.get(row.structure, (0.0, 0))
                sums[row.structure] = (total + (row.mean or 0.0) * row.n, n + row.n)
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
    means = federation_mean(sites)
    known = [value for region in Region if (value := means.get(region.value)) is not None]
    return fmean(known) if known else None
