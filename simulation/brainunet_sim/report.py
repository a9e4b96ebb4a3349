"""What a simulation leaves for people and machines: summary.json and dice.png, both made from the store alone."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brainunet.files import writing_aside
from brainunet.labels import Region
from brainunet.metrics.summary import best_round, federation_mean, mean_of, mean_region_dice
from brainunet.records import Problem, SiteScore
from brainunet_server.store.reader import Run, SiteRound, StoreReader, site_scores

# Okabe and Ito's palette: told apart by the colour-blind, and a site keeps its place in it.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def summarise(database: str | Path, run_id: str, *, skipped: Sequence[Problem], seconds: float) -> dict[str, Any]:
    """The figures of a run as plain data.

    ``rounds`` is a list: round 0 is the model it started from, round k the model after exchange k. Dice of round k was
    measured in exchange k + 1; loss, seconds and bytes belong to exchange k, and round 0 has none.
    """
    with StoreReader(database) as store:
        run = store.run(run_id)
        rounds = _rounds(store, run)
        spends = store.spends(run_id)
        local = {
            str(other.site): _rounds(store, other)
            for other in store.runs()
            if other.parent_id == run_id and other.kind == "local"
        }
    means = {entry["round"]: entry["mean_dice_of_regions"] for entry in rounds}
    summary: dict[str, Any] = {
        "run": run.id,
        "strategy": run.strategy,
        "preset": run.preset,
        "norm": run.norm,
        "status": run.status,
        "rounds": rounds,
        "best_round": best_round(means),
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(peak_memory_mb()),
        "seed": run.seed,
        "config_sha256": run.config_sha256,
        "skipped": [{"case": problem.case_id, "reason": problem.reason} for problem in skipped],
    }
    if spends:
        summary["privacy"] = {row.site: {"epsilon": row.epsilon, "delta": row.delta} for row in spends}  # the last of each
    if local:
        summary["local_only"] = {site: _only_dice(own, site) for site, own in sorted(local.items())}
    return summary


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    with writing_aside(path) as aside:
        aside.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def plot_dice(path: Path, summary: Mapping[str, Any], region: Region = Region.WT) -> None:
    """A line of Dice by round for each site, their mean, and each site alone (dashed) where that was run."""
    rounds = summary["rounds"]
    sites = sorted({site for entry in rounds for site in entry["sites"]})
    figure = Figure(figsize=(8.5, 5.0))
    # fixed margins: equal rounds give equal pictures, which a layout solver does not promise
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.1, top=0.93)
    axes = figure.subplots()
    for i, site in enumerate(sites):
        colour = COLOURS[i % len(COLOURS)]
        points = [(e["round"], e["sites"][site]["dice"].get(region)) for e in rounds if site in e["sites"]]
        n = next((e["sites"][site]["cases"]["validation"] for e in rounds if site in e["sites"]), "?")
        _line(axes, points, color=colour, marker="o", lw=1.6, label=f"{site} (n = {n})")
        own = summary.get("local_only", {}).get(site, [])
        _line(axes, [(e["round"], e["dice"].get(region)) for e in own], color=colour, ls="--", lw=1.2, alpha=0.8)
    mean = [(entry["round"], entry["mean_dice"].get(region)) for entry in rounds]
    _line(axes, mean, color="black", lw=3, label="mean over cases")
    if "local_only" in summary:
        axes.plot([], [], color="grey", ls="--", lw=1.2, label="trained alone, same steps")
    axes.set_title(f"{summary['preset']}, {summary['strategy']}: {_REGION_WORDS[region]} on each site's validation cases")
    axes.set_xlabel("round (0: the model it started from)")
    axes.set_ylabel(f"Dice, {region}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=9)
    with writing_aside(path) as aside:
        figure.savefig(aside, dpi=120, format="png")


def peak_memory_mb() -> float:
    """The most memory this process has held so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most / 1024


_REGION_WORDS = {Region.WT: "whole tumour", Region.TC: "tumour core", Region.ET: "enhancing tumour"}


def _line(axes: Any, points: Sequence[tuple[int, float | None]], **style: Any) -> None:
    known = [(x, y) for x, y in points if y is not None]
    if known:
        axes.plot([x for x, _ in known], [y for _, y in known], **style)


def _rounds(store: StoreReader, run: Run) -> list[dict[str, Any]]:
    by_round = site_scores(store.scores(run.id))
    exchanges: dict[int, list[SiteRound]] = {}
    for row in store.site_rounds(run.id):
        exchanges.setdefault(row.round, []).append(row)
    entries = []
    scored_until = max([*by_round, *(exchange - 1 for exchange in exchanges)], default=-1)
    for number in range(scored_until + 1):
        scores = by_round.get(number, {})
        did = {row.site: row for row in exchanges.get(number, ())}
        scored = {row.site: row for row in exchanges.get(number + 1, ())}
        entries.append(
            {
                "round": number,
                "mean_dice": federation_mean(scores.values()),
                "mean_dice_of_regions": mean_region_dice(scores.values()),
                "sites": {site: _site(scores[site], scored.get(site), did.get(site)) for site in sorted(scores)},
            }
        )
    return entries


def _site(score: SiteScore, scored: SiteRound | None, did: SiteRound | None) -> dict[str, Any]:
    return {
        "cases": {"train": scored.cases_train if scored else None, "validation": score.cases},
        "dice": mean_of(score),
        "loss": did.loss if did else None,
        "seconds": did.seconds if did else None,
        "bytes_down": did.bytes_down if did else 0,
        "bytes_up": did.bytes_up if did else 0,
    }


def _only_dice(rounds: Sequence[Mapping[str, Any]], site: str) -> list[dict[str, Any]]:
    return [{"round": r["round"], "dice": r["sites"][site]["dice"]} for r in rounds if site in r["sites"]]
