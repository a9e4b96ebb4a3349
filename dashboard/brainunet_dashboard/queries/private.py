"""What private training has cost, by site and round. A site's own cap never leaves it, so it is nowhere here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from brainunet_dashboard.queries.runs import number_of
from brainunet_server.store.reader import Run, SpendRow


def target_of(run: Run) -> tuple[float, float] | None:
    """The epsilon and delta that the federation proposes for a run, None of one without differential privacy."""
    epsilon, delta = number_of(run, "privacy", "epsilon"), number_of(run, "privacy", "delta")
    return None if epsilon is None or delta is None else (epsilon, delta)


def epsilon_by_round(spends: Iterable[SpendRow]) -> dict[str, list[tuple[int, float]]]:
    """Site -> (round, epsilon of the run until then), by name and round."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in sorted(spends, key=lambda row: (row.site, row.round)):
        found.setdefault(row.site, []).append((row.round, row.epsilon))
    return found


def spend_table(spends: Sequence[SpendRow], target: tuple[float, float] | None) -> list[dict[str, Any]]:
    """A row for each site, by name: what it has told last."""
    last = {row.site: row for row in sorted(spends, key=lambda row: row.round)}
    return [
        {
            "site": site,
            "round": row.round,
            "epsilon": row.epsilon,
            "share": None if target is None or not target[0] else row.epsilon / target[0],
            "delta": row.delta,
            "noise": row.noise_multiplier,
            "rate": row.sample_rate,
            "steps": sum(other.steps for other in spends if other.site == site),
            "total_epsilon": row.total_epsilon,
            "total_delta": row.total_delta,
        }
        for site, row in sorted(last.items())
    ]
