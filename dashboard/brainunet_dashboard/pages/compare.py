"""Runs of one store side by side: strategies, partitions, and each site alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from brainunet_dashboard.charts.lines import runs_chart
from brainunet_dashboard.frame import View, change, chart, choose_structure, empty, live, name_of, number, table, text, zone
from brainunet_dashboard.queries import figures
from brainunet_dashboard.queries.runs import (
    alone_runs,
    comparison,
    main_runs,
    mean_alone,
    start_differently,
    title_of,
    titles_of,
)
from brainunet_dashboard.words import START_DIFFERENTLY, in_shell, visible
from brainunet_server.store.reader import Run

FIRST_SHOWN = 6


def show() -> None:
    st.title("Simulation compare")
    live(_body)


def _body(view: View) -> None:
    runs = view.feed.runs()
    shown = {run.id: run for run in main_runs(runs)}
    if not shown:
        empty("No run yet. Several simulations in one store can be compared:", _example(view))
        return
    here = zone()
    picked = st.multiselect(
        "Runs",
        list(shown),
        default=list(shown)[:FIRST_SHOWN],
        persist_state="session",
        format_func=lambda one: visible(title_of(shown[one], here) if one in shown else one),
        key="compare runs",
    )
    chosen = [shown[one] for one in picked if one in shown]
    if not chosen:
        empty("Choose one or more runs.")
        return
    structure = choose_structure()
    _together(view, runs, chosen, structure)
    if len(shown) < 2:
        empty("Only one run so far. Another in the same store is compared here:", _example(view))


def _together(view: View, runs: Sequence[Run], chosen: Sequence[Run], structure: str) -> None:
    lines, rows = {}, []
    alone: Mapping[str, list[tuple[int, float]]] = {run.id: _alone(view, runs, run, structure) for run in chosen}
    for run in chosen:
        found, exchanges = view.feed.figures(run.id), view.feed.site_rounds(run.id)
        lines[run.id] = figures.lines_of(found, exchanges, structure)
        row = comparison(run, found, exchanges, structure, lines[run.id])
        row["alone"] = alone[run.id][-1][1] if alone[run.id] else None
        row["gb"] = row["bytes"] / 1e9
        rows.append(row)
    means = {run: own.overall for run, own in lines.items()}
    chart(
        runs_chart(means, alone, view.looks_of_runs, titles_of(chosen), figures.metric_of("dice"), structure),
        "compare chart",
        f"Mean Dice of {structure} of each run by round",
    )
    st.caption("Means over the validation cases of all sites. Dotted: what the sites reach alone, with as many steps.")
    if start_differently(lines):
        st.caption(START_DIFFERENTLY)
    columns = {
        "strategy": name_of("strategy", 100),
        "partition": text("partition"),
        "start": number("round 0", 3, f"mean Dice of {structure} of the model that the run began with"),
        "last": number("latest", 3, f"mean Dice of {structure} of the latest model that was scored"),
        "gain": change("gain", 3, "from round 0 to the latest"),
        "alone": number("sites alone", 3, "each site trained on its own cases only, with as many steps"),
        "n": number("n (cases)", 0),
        "sites": number("sites", 0),
        "rounds": number("rounds", 0),
        "epsilon": number("epsilon", 1, "the target of differential privacy"),
        "worst_site": text("worst site"),
        "worst": number("its Dice"),
        "spread": number("spread", 3, "of the latest model, between the best and the worst site"),
        "best_round": number("best round", 0, "by the mean Dice over ET, TC and WT"),
        "gb": number("GB"),
        "seed": number("seed", 0),
        "preset": text("network"),
        "status": text("status"),
        "run": text("run"),
    }
    if all(row["epsilon"] is None for row in rows):
        del columns["epsilon"]
    if all(row["alone"] is None for row in rows):
        del columns["alone"]
    table(rows, columns, key="compare table")


def _alone(view: View, runs: Sequence[Run], run: Run, structure: str) -> list[tuple[int, float]]:
    own = {
        site: figures.lines_of(view.feed.figures(other.id), (), structure) for site, other in alone_runs(runs, run.id).items()
    }
    return mean_alone(own)


def _example(view: View) -> str:
    database = in_shell(str(view.source.database))
    return f"brainunet-simulate --phantom --strategy fedprox --baseline local --database {database} --out out/fedprox"
