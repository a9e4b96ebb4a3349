"""The runs of a store, and what their settings say. A setting that is not there, or not what it should be, is None."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from functools import lru_cache
from typing import Any, Final

from brainunet.moments import day
from brainunet_dashboard.queries.figures import Lines, best_and_worst_rounds, difference, lines_of, spread
from brainunet_server.store.reader import Figure, Run, SiteRound

SAME_START: Final = 0.0005  # of Dice, the last figure that is shown


@lru_cache(maxsize=256)
def _settings(config: str) -> Mapping[str, Any]:
    try:
        told = json.loads(config)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def setting(run: Run, *path: str) -> Any:
    """One of a run's resolved settings, None where it has none.

    >>> from datetime import UTC, datetime
    >>> run = Run(id="r", kind="simulation", strategy="fedavg", preset="p", norm="group", rounds=1, seed=0,
    ...     config='{"partition": {"name": "iid"}}', config_sha256="0", started_at=datetime(2026, 3, 1, tzinfo=UTC))
    >>> setting(run, "partition", "name"), setting(run, "partition", "name", "deeper")
    ('iid', None)
    """
    found: Any = _settings(run.config)
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def number_of(run: Run, *path: str) -> float | None:
    found = setting(run, *path)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def word_of(run: Run, *path: str) -> str | None:
    found = setting(run, *path)
    return found if isinstance(found, str) else None


def main_runs(runs: Sequence[Run]) -> list[Run]:
    """Federations and simulations, the latest first; trainings of a site alone belong to theirs."""
    return [run for run in reversed(runs) if run.kind != "local"]


def alone_runs(runs: Sequence[Run], run_id: str) -> dict[str, Run]:
    """Site -> its training alone, of a simulation that has such a baseline."""
    return {run.site: run for run in runs if run.kind == "local" and run.parent_id == run_id and run.site}


def title_of(run: Run, zone: tzinfo) -> str:
    """How a list names a run."""
    return f"{run.id} ({run.kind}, {run.strategy}, {day(run.started_at, zone)}, {run.status})"


def comparison(
    run: Run, figures: Sequence[Figure], exchanges: Sequence[SiteRound], structure: str, lines: Lines | None = None
) -> dict[str, Any]:
    """One row of the table of runs. ``best`` and the worst site are of Dice; the last round is the latest that was scored."""
    own = lines or lines_of(figures, exchanges, structure)
    told = {point.round: point for point in own.overall if point.value is not None}
    best, _ = best_and_worst_rounds(figures)
    ends = spread(own, own.latest)
    epsilon = number_of(run, "privacy", "epsilon")
    return {
        "run": run.id,
        "strategy": run.strategy,
        "partition": partition_of(run),
        "preset": run.preset,
        "sites": len(own.sites),
        "rounds": run.rounds,
        "epsilon": epsilon,
        "start": told[0].value if 0 in told else None,
        "last": told[own.latest].value if own.latest is not None else None,
        "gain": difference(told[own.latest].value, told[0].value) if own.latest and 0 in told else None,
        "n": told[own.latest].n if own.latest is not None else None,
        "best_round": best,
        "worst_site": ends.worst[0] if ends.worst else None,
        "worst": ends.worst[1] if ends.worst else None,
        "spread": ends.width,
        "bytes": sum(row.bytes_down + row.bytes_up for row in exchanges),
        "seed": run.seed,
        "status": run.status,
    }


def titles_of(runs: Sequence[Run]) -> dict[str, str]:
    """How a legend names runs, by id: what was tried in each, and then its id."""
    return {run.id: ", ".join(part for part in (run.strategy, partition_of(run)) if part) + f": {run.id}" for run in runs}


def start_differently(runs: Mapping[str, Lines]) -> bool:
    """Whether runs have another mean at round 0: then their levels say nothing of each other, only what each has gained."""
    starts = [point.value for lines in runs.values() for point in lines.overall if point.round == 0 and point.value is not None]
    return bool(starts) and max(starts) - min(starts) > SAME_START


def partition_of(run: Run) -> str | None:
    name = word_of(run, "partition", "name")
    alpha = number_of(run, "partition", "alpha")
    return f"{name}, alpha {alpha:g}" if name == "dirichlet" and alpha is not None else name


def mean_alone(alone: Mapping[str, Lines]) -> list[tuple[int, float]]:
    """Round -> mean over the cases of all sites of what each has reached alone, of rounds that every one of them has."""
    by_round: dict[int, list[tuple[float, int]]] = {}
    for lines in alone.values():
        for point in lines.overall:
            if point.value is not None:
                by_round.setdefault(point.round, []).append((point.value, point.n))
    return [
        (number, sum(value * n for value, n in found) / sum(n for _, n in found))
        for number, found in sorted(by_round.items())
        if len(found) == len(alone) and any(n for _, n in found)
    ]
