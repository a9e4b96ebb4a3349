"""How the sites' figures lie, what the federation has gained, and how two runs compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from brainunet.labels import Region
from brainunet_dashboard.charts.gains import gain_chart
from brainunet_dashboard.charts.lines import band_chart, line_chart, runs_chart
from brainunet_dashboard.frame import (
    View,
    change,
    chart,
    choose_structure,
    chosen_run,
    empty,
    ink,
    live,
    name_of,
    number,
    table,
    text,
    zone,
)
from brainunet_dashboard.queries import figures
from brainunet_dashboard.queries.figures import Line, Lines, Metric
from brainunet_dashboard.queries.runs import alone_runs, main_runs, start_differently, title_of, titles_of
from brainunet_dashboard.words import NO_FIGURE, START_DIFFERENTLY, apart, figure, in_shell, plain, visible
from brainunet_server.store.reader import Run


def show() -> None:
    st.title("Scores")
    live(_body)


def _body(view: View) -> None:
    run = chosen_run(view)
    if run is None:
        return
    metrics = view.feed.metrics(run.id)
    if not metrics:
        if any(row.withheld for row in view.feed.site_rounds(run.id)):
            empty(NO_FIGURE)
            return
        told = f"flower-server scores {in_shell(view.source.name)}" if run.kind == "federation" else ""
        empty("No figure yet: a round's model is scored by the sites in the next round.", told)
        return
    structure = choose_structure()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            "Metric",
            metrics,
            index=metrics.index("dice") if "dice" in metrics else 0,
            format_func=_title,
            width=260,
            key="scores metric",
        )
    metric = figures.metric_of(name)
    lines = figures.lines_of(view.feed.figures(run.id, name), view.feed.site_rounds(run.id), structure)
    if lines.latest is None:
        empty(f"No site tells {metric.title} of {structure} yet.")
        return
    _distribution(lines, metric, structure)
    _every_metric(view, run, metrics, lines)
    _gains(view, run, name, lines, metric, structure)
    _best(view, run)
    _other_run(view, run, name, lines, metric, structure)


def _title(name: str) -> str:
    metric = figures.metric_of(name)
    return f"{metric.title}, {metric.unit}" if metric.unit else metric.title


def _distribution(lines: Lines, metric: Metric, structure: str) -> None:
    st.subheader("How the sites lie")
    rows = figures.distribution(lines)
    chart(
        band_chart(rows, metric, structure, ink=ink()),
        "scores band",
        f"Spread of {metric.title} of {structure} over the sites by round",
    )
    st.caption("Each site counts once here, however many cases it has; only sites that tell a figure.")


def _every_metric(view: View, run: Run, metrics: Sequence[str], lines: Lines) -> None:
    st.subheader("Every metric of a round")
    rounds = lines.rounds
    latest = f"{lines.latest}, the latest"
    picked = st.selectbox(
        "Model of round",
        [None, *reversed(rounds)],  # None goes on with the run
        format_func=lambda one: latest if one is None else str(one),
        width=200,
        key="scores round",
    )
    at = lines.latest or 0 if picked is None else picked
    columns = {
        "site": name_of("site"),
        "structure": text("region"),
        "n": number("n (cases)", 0),
        "missing": number("without a value", 0),
    }
    for name in metrics:
        columns[name] = number(_title(name), figures.metric_of(name).digits, "mean over the site's validation cases")
    table(
        figures.metric_table(view.feed.figures_of_round(run.id, at), at),
        columns,
        key="scores metrics",
        height=_height(3 * len(lines.sites)),
    )
    missing = [figures.metric_of(name).title for name in ("hd95_mm", "lesion_dice") if name not in metrics]
    if missing:
        asked = 'validation.metrics = ["dice", "hd95_mm", "lesion_dice", "lesion_hd95_mm"]'
        st.caption(f"The sites of this run tell no {' and no '.join(missing)}. A new run asks for them with `{asked}`.")


def _gains(view: View, run: Run, name: str, lines: Lines, metric: Metric, structure: str) -> None:
    st.subheader("What the federation gained")
    alone = _alone(view, run, name, structure)
    rows = figures.gains(lines, alone)
    chart(
        gain_chart(rows, view.looks, metric, structure),
        "scores gain",
        f"{metric.title} of {structure} at the start and now, by site",
    )
    columns = {
        "site": name_of("site"),
        "n": number("n (cases)", 0),
        "start": number("round 0", metric.digits),
        "latest": number(f"round {lines.latest}", metric.digits),
        "gain": change("gain", metric.digits, "over the model that the run began with"),
        "alone": number("alone", metric.digits, "trained on this site's cases only, with as many steps"),
        "gain_over_alone": change("gain over alone", metric.digits),
    }
    if not alone:
        columns = {key: one for key, one in columns.items() if "alone" not in key}
    table(rows, columns, key="scores gains")
    if metric.higher_is_better is False:
        st.caption("Lower is better: a negative gain is an improvement.")
    if alone:
        with st.expander("Round by round, each site alone dotted"):
            chart(line_chart(lines, view.looks, metric, structure, ink=ink(), alone=alone), "scores alone", "The same by round")
    elif run.kind == "simulation":
        st.caption("Each site alone is recorded by a simulation with `--baseline local`.")


def _alone(view: View, run: Run, name: str, structure: str) -> Mapping[str, Line]:
    runs = alone_runs(view.feed.runs(), run.id)
    found = {site: figures.lines_of(view.feed.figures(own.id, name), (), structure) for site, own in runs.items()}
    return {site: lines.sites[site] for site, lines in found.items() if site in lines.sites}


def _best(view: View, run: Run) -> None:
    rows = view.feed.figures(run.id)
    means, lines = figures.means_of_regions(rows), figures.lines_of(rows, (), Region.WT)
    best, worst = figures.best_and_worst_rounds(rows)
    if best is None or worst is None:
        return
    st.subheader("Best and worst round")
    with st.container(horizontal=True, gap="small"):
        st.metric("Best", f"round {best}: {figure(means[best])} ({_n(lines, best)})", border=True, width="content")
        st.metric("Worst", f"round {worst}: {figure(means[worst])} ({_n(lines, worst)})", border=True, width="content")
    st.caption("By the mean Dice over ET, TC and WT, each over all cases of all sites; n is their number for WT.")


def _n(lines: Lines, number: int) -> str:
    return f"n = {next((point.n for point in lines.overall if point.round == number), 0)}"


def _other_run(view: View, run: Run, name: str, lines: Lines, metric: Metric, structure: str) -> None:
    others = [other for other in main_runs(view.feed.runs()) if other.id != run.id]
    if not others:
        return
    st.subheader("Against another run")
    by_id, here = {other.id: other for other in others}, zone()
    picked = st.selectbox(
        "Other run",
        list(by_id),
        index=None,
        format_func=lambda one: visible(title_of(by_id[one], here) if one in by_id else one),
        placeholder="choose a run",
        key="scores other",
    )
    if picked not in by_id:
        return
    other = figures.lines_of(view.feed.figures(picked, name), view.feed.site_rounds(picked), structure)
    rows = figures.compared(lines, other)
    both = [row for row in rows if row["difference"] is not None]
    if both:
        last = both[-1]
        how_far = apart(last["difference"], metric.unit, metric.digits)
        st.write(
            f"In round {last['round']} the mean over all cases of {plain(picked)} is {plain(how_far)} that of {plain(run.id)}."
        )
    means = {run.id: lines.overall, picked: other.overall}
    titles = titles_of((run, by_id[picked]))
    drawn = runs_chart(means, {}, view.looks_of_runs, titles, metric, structure)
    chart(drawn, "scores other chart", f"{metric.title} of {structure} of two runs by round")
    columns = {
        "round": number("round", 0),
        "one": number(visible(run.id, 30), metric.digits),
        "other": number(visible(picked, 30), metric.digits),
        "difference": change("difference", metric.digits),
    }
    if start_differently({run.id: lines, picked: other}):
        st.caption(START_DIFFERENTLY)
    table(rows, columns, key="scores compared", height=_height(len(rows)))


def _height(rows: int) -> int:
    return min(38 + 35 * max(rows, 1), 420)
