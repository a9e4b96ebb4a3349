"""Tables in, figures out. Names go through ``in_chart``, for plotly reads HTML in them; every hover says n and unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import plotly.graph_objects as go

from brainunet_dashboard.palette import GREY, OUTCOME_COLOURS, OUTCOME_LETTERS, Look, look
from brainunet_dashboard.queries.figures import Line, Lines, Metric
from brainunet_dashboard.queries.rounds import OUTCOMES, Grid
from brainunet_dashboard.words import in_chart, visible

HEIGHT: Final = 420
MOST_LETTERS: Final = 600  # cells of a heat map that are not yet too small for one
MARKED_ROUNDS: Final = 60  # beyond these a line's points run into each other
FEW_ROUNDS: Final = 14  # each has its number below the axis
NO_LOOK: Final = Look(GREY)


def line_chart(
    lines: Lines,
    looks: Mapping[str, Look],
    metric: Metric,
    structure: str,
    *,
    ink: str,
    alone: Mapping[str, Line] | None = None,
) -> go.Figure:
    """A line for each site and the mean over all cases; withheld points as crosses at the foot; dashed, each site ``alone``.

    Args:
        ink: colour of the mean: dark on a light page, light on a dark one.
    """
    chart = _by_round(_axis(metric, structure), lines.rounds)
    low, high = _range(lines, metric, alone or {})
    mode = "lines+markers" if len(lines.rounds) <= MARKED_ROUNDS else "lines"
    for site, line in lines.sites.items():
        style, name = looks.get(site, NO_LOOK), in_chart(site)
        n = next((point.n for point in reversed(line) if point.value is not None), None)
        chart.add_scatter(
            x=[point.round for point in line],
            y=[point.value for point in line],
            customdata=[point.n for point in line],
            mode=mode,
            name=name if n is None else f"{name} (n = {n})",
            legendgroup=name,
            line={"color": style.colour, "dash": style.dash, "width": 1.8},
            marker={"symbol": style.mark, "size": 6},
            meta=name,
            hovertemplate=_hover(metric, structure),
        )
        hidden = [point for point in line if point.value is None]
        if hidden:
            chart.add_scatter(
                x=[point.round for point in hidden],
                y=[low + 0.03 * (high - low)] * len(hidden),
                cliponaxis=False,
                customdata=[in_chart(point.why) for point in hidden],
                mode="markers",
                name=f"{name}, no figure",
                legendgroup=name,
                showlegend=False,
                marker={"symbol": "x-open", "size": 8, "color": style.colour, "line": {"width": 1.5}},
                meta=name,
                hovertemplate="%{meta}<br>round %{x}: %{customdata}<extra></extra>",
            )
    for site, line in (alone or {}).items():
        style, name = looks.get(site, NO_LOOK), in_chart(site)
        told = [point for point in line if point.value is not None]
        chart.add_scatter(
            x=[point.round for point in told],
            y=[point.value for point in told],
            customdata=[point.n for point in told],
            mode="lines",
            name=f"{name} alone",
            line={"color": style.colour, "dash": "dot", "width": 1.2},
            meta=f"{name}, trained alone",
            hovertemplate=_hover(metric, structure),
        )
    chart.add_scatter(
        x=[point.round for point in lines.overall],
        y=[point.value for point in lines.overall],
        customdata=[point.n for point in lines.overall],
        mode=mode,
        name="mean over all cases",
        line={"color": ink, "width": 3.5},
        marker={"size": 7},
        meta="mean over all cases",
        hovertemplate=_hover(metric, structure),
    )
    chart.update_yaxes(range=[low, high])
    return chart


def band_chart(rows: Sequence[Mapping[str, Any]], metric: Metric, structure: str, *, ink: str) -> go.Figure:
    """How the sites lie in each round: the span of all, the middle half, and the median."""
    rounds = [row["round"] for row in rows]
    chart = _by_round(_axis(metric, structure), rounds)
    for name, below, above, colour in (
        ("all sites", "least", "most", "rgba(0,114,178,0.20)"),
        ("middle half", "q1", "q3", "rgba(0,114,178,0.40)"),
    ):
        chart.add_scatter(
            x=[*rounds, *reversed(rounds)],
            y=[*(row[above] for row in rows), *reversed([row[below] for row in rows])],
            fill="toself",
            fillcolor=colour,
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            name=name,
        )
    chart.add_scatter(
        x=rounds,
        y=[row["median"] for row in rows],
        customdata=[[row["least"], row["q1"], row["q3"], row["most"], row["sites"]] for row in rows],
        mode="lines+markers" if len(rows) <= MARKED_ROUNDS else "lines",
        name="median of the sites",
        line={"color": ink, "width": 2.5},
        hovertemplate="round %{x}: median %{y:.3f} of %{customdata[4]} sites<br>middle half %{customdata[1]:.3f} to "
        "%{customdata[2]:.3f}<br>all %{customdata[0]:.3f} to %{customdata[3]:.3f}<extra></extra>",
    )
    return chart


def gain_chart(rows: Sequence[Mapping[str, Any]], looks: Mapping[str, Look], metric: Metric, structure: str) -> go.Figure:
    """A line for each site from the model it began with to the latest one, with what it reached alone beside it."""
    chart = _empty(_axis(metric, structure), "")
    places = {row["site"]: place for place, row in enumerate(rows)}
    for row in rows:
        style, ends = looks.get(row["site"], NO_LOOK), [row["start"], row["latest"]]
        if None not in ends:
            chart.add_scatter(
                x=ends,
                y=[places[row["site"]]] * 2,
                mode="lines",
                line={"color": style.colour, "width": 3},
                showlegend=False,
                hoverinfo="skip",
            )
    for key, label, mark in (
        ("start", "began with", "circle-open"),
        ("latest", "federated", "circle"),
        ("alone", "alone", "x"),
    ):
        told = [row for row in rows if row[key] is not None]
        if told:
            chart.add_scatter(
                x=[row[key] for row in told],
                y=[places[row["site"]] for row in told],
                text=[in_chart(row["site"]) for row in told],
                customdata=[row["n"] for row in told],
                mode="markers",
                name=label,
                marker={
                    "symbol": mark,
                    "size": 11,
                    "color": [looks.get(row["site"], NO_LOOK).colour for row in told],
                    "line": {"width": 2, "color": [looks.get(row["site"], NO_LOOK).colour for row in told]},
                },
                hovertemplate=f"%{{text}}, {label}: %{{x:.{metric.digits}f}} {metric.unit} (n = %{{customdata}})"
                "<extra></extra>",
            )
    chart.update_layout(height=max(220, 140 + 30 * len(rows)), legend={"y": 1.02, "yanchor": "bottom"})
    _name_rows(chart, list(places))
    return chart


def outcome_chart(grid: Grid) -> go.Figure:
    """A cell for each site and round, with a letter where there is room for one; its legend is :func:`outcome_legend`."""
    chart = _by_round("", grid.rounds, "round")
    number = {outcome: i for i, outcome in enumerate(OUTCOMES)}
    scale = []
    for i, outcome in enumerate(OUTCOMES):
        scale += [[i / len(OUTCOMES), OUTCOME_COLOURS[outcome]], [(i + 1) / len(OUTCOMES), OUTCOME_COLOURS[outcome]]]
    roomy = len(grid.sites) * len(grid.rounds) <= MOST_LETTERS
    chart.add_heatmap(
        x=list(grid.rounds),
        y=list(range(len(grid.sites))),
        z=[[number[cell] for cell in line] for line in grid.cells],
        customdata=[
            [f"{in_chart(site)}, {in_chart(told)}" for told in line] for site, line in zip(grid.sites, grid.told, strict=True)
        ],
        text=[[OUTCOME_LETTERS[cell] for cell in line] for line in grid.cells] if roomy else None,
        texttemplate="%{text}" if roomy else None,
        textfont={"color": "white"},
        zmin=-0.5,
        zmax=len(OUTCOMES) - 0.5,
        colorscale=scale,
        showscale=False,
        xgap=1 if len(grid.rounds) <= 100 else 0,
        ygap=1,
        hovertemplate="round %{x}<br>%{customdata}<extra></extra>",
    )
    chart.update_layout(height=max(180, 90 + 26 * len(grid.sites)))
    _name_rows(chart, grid.sites)
    chart.update_yaxes(showgrid=False)
    chart.update_xaxes(showgrid=False, zeroline=False)
    return chart


def outcome_legend(grid: Grid) -> str:
    """The legend as HTML, which a phone can fold; it holds no name."""
    there = {cell for line in grid.cells for cell in line}
    return " &ensp; ".join(
        f'<span style="white-space: nowrap"><span style="color: {OUTCOME_COLOURS[outcome]}">&#9632;</span> {outcome}'
        + (f" ({OUTCOME_LETTERS[outcome]})" if OUTCOME_LETTERS[outcome] else "")
        + "</span>"
        for outcome in OUTCOMES
        if outcome in there
    )


def epsilon_chart(
    by_site: Mapping[str, Sequence[tuple[int, float]]], looks: Mapping[str, Look], target: float | None, *, ink: str
) -> go.Figure:
    """A line for each site, and the federation's target across."""
    chart = _by_round("epsilon of this run so far", (number for points in by_site.values() for number, _ in points), "round")
    for site, points in by_site.items():
        style, name = looks.get(site, NO_LOOK), in_chart(site)
        chart.add_scatter(
            x=[number for number, _ in points],
            y=[epsilon for _, epsilon in points],
            mode="lines+markers" if len(points) <= MARKED_ROUNDS else "lines",
            name=name,
            line={"color": style.colour, "dash": style.dash},
            marker={"symbol": style.mark},
            meta=name,
            hovertemplate="%{meta}<br>after round %{x}: epsilon %{y:.3f}<extra></extra>",
        )
    if target is not None:
        chart.add_hline(y=target, line={"color": ink, "dash": "dash"}, annotation_text=f"target {target:g}")
    chart.update_yaxes(rangemode="tozero")
    return chart


def traffic_chart(
    by_site: Mapping[str, Sequence[tuple[int, int, int]]], looks: Mapping[str, Look], *, cumulated: bool
) -> go.Figure:
    """Megabytes of each site by round, one on the other; or their sum so far."""
    rounds = (point[0] for points in by_site.values() for point in points)
    chart = _by_round("MB so far, both ways" if cumulated else "MB in the round, both ways", rounds, "round")
    for site, points in by_site.items():
        style, name = looks.get(site, NO_LOOK), in_chart(site)
        x, y = [point[0] for point in points], [point[2 if cumulated else 1] / 1e6 for point in points]
        hover = "%{meta}<br>round %{x}: %{y:.1f} MB<extra></extra>"
        if cumulated:
            line = {"color": style.colour, "dash": style.dash}
            chart.add_scatter(x=x, y=y, mode="lines", name=name, meta=name, line=line, hovertemplate=hover)
        else:
            bar = {"color": style.colour, "line": {"width": 0}}
            chart.add_bar(x=x, y=y, name=name, meta=name, marker=bar, hovertemplate=hover)
    if cumulated:
        sums: dict[int, int] = {}
        for points in by_site.values():
            for number, here, _ in points:
                sums[number] = sums.get(number, 0) + here
        x = sorted(sums)
        y = [total / 1e6 for total in accumulate(sums[number] for number in x)]
        chart.add_scatter(x=x, y=y, mode="lines", name="all sites", line={"color": GREY, "width": 3})
    chart.update_layout(barmode="stack")
    chart.update_yaxes(rangemode="tozero")
    return chart


def lineage_chart(rows: Sequence[Mapping[str, Any]], *, ink: str) -> go.Figure:
    """The models of a run: those that are there, those that were removed to make room, and those that were published."""
    chart = _by_round("mean Dice over ET, TC, WT", (row["round"] for row in rows))
    for name, wanted, mark in (
        (
            "on the disk",
            lambda row: row["on_disk"] and not row["releases"],
            {"symbol": "circle", "color": "#0072B2", "size": 9},
        ),
        (
            "removed to make room",
            lambda row: not row["on_disk"] and not row["releases"],
            {"symbol": "circle-open", "color": GREY},
        ),
        ("published", lambda row: row["releases"], {"symbol": "star", "color": "#D55E00", "size": 15}),
    ):
        found = [row for row in rows if wanted(row) and row["mean_dice"] is not None]
        if found:
            published = name == "published"
            chart.add_scatter(
                x=[row["round"] for row in found],
                y=[row["mean_dice"] for row in found],
                text=[in_chart(row["releases"]) for row in found],
                customdata=[row["digest"][:12] for row in found],
                mode="markers+text" if published else "markers",
                textposition="top center",
                textfont={"color": ink},
                name=name,
                marker=mark,
                hovertemplate=f"round %{{x}}, {name}<br>mean Dice %{{y:.3f}}<br>%{{customdata}} %{{text}}<extra></extra>",
            )
    return chart


def runs_chart(
    means: Mapping[str, Line], alone: Mapping[str, Sequence[tuple[int, float]]], metric: Metric, structure: str
) -> go.Figure:
    """A line for each run: its mean over all cases; dashed, the mean of what its sites reach alone."""
    chart = _by_round(_axis(metric, structure), (point.round for line in means.values() for point in line))
    for place, (run, line) in enumerate(means.items()):
        style, name = look(place), in_chart(run)
        told = [point for point in line if point.value is not None]
        chart.add_scatter(
            x=[point.round for point in told],
            y=[point.value for point in told],
            customdata=[point.n for point in told],
            mode="lines+markers" if len(told) <= MARKED_ROUNDS else "lines",
            name=name,
            line={"color": style.colour, "dash": style.dash, "width": 2.5},
            marker={"symbol": style.mark},
            meta=name,
            hovertemplate=_hover(metric, structure),
        )
        if alone.get(run):
            chart.add_scatter(
                x=[number for number, _ in alone[run]],
                y=[value for _, value in alone[run]],
                mode="lines",
                name=f"{name}: each site alone",
                line={"color": style.colour, "dash": "dot", "width": 1.5},
                meta=name,
                hovertemplate=f"%{{meta}}, each site alone<br>round %{{x}}: %{{y:.{metric.digits}f}}<extra></extra>",
            )
    return chart


def _by_round(y: str, rounds: Iterable[int], x: str = "round (0: the model it began with)") -> go.Figure:
    chart = _empty(x, y)
    found = list(rounds)
    if found and max(found) - min(found) <= FEW_ROUNDS:
        chart.update_xaxes(dtick=1)  # there is no round 1.5
    return chart


def _empty(x: str, y: str) -> go.Figure:
    chart = go.Figure()
    chart.update_layout(
        height=HEIGHT,
        margin={"l": 8, "r": 8, "t": 16, "b": 8},
        legend={"orientation": "h", "yanchor": "top", "y": -0.22, "x": 0},
        hovermode="closest",
        uirevision="same",  # a refresh leaves what somebody has zoomed into
        xaxis={"title": {"text": x}, "tickformat": "~f", "automargin": True},
        yaxis={"title": {"text": y}, "automargin": True},
    )
    return chart


def _name_rows(chart: go.Figure, names: Sequence[str]) -> None:
    """Names from top to bottom. They are labels of numbers, since two long ones may look alike when they are cut."""
    labels = [in_chart(visible(name, 18)) for name in names]
    chart.update_yaxes(
        autorange="reversed", tickmode="array", tickvals=list(range(len(names))), ticktext=labels, zeroline=False
    )


def _axis(metric: Metric, structure: str) -> str:
    return f"{metric.title} of {structure}" + (f" ({metric.unit})" if metric.unit else "")


def _hover(metric: Metric, structure: str) -> str:
    figure = f"{metric.title} of {structure} %{{y:.{metric.digits}f}}" + (f" {metric.unit}" if metric.unit else "")
    return f"%{{meta}}<br>round %{{x}}: {figure} (n = %{{customdata}})<extra></extra>"


def _range(lines: Lines, metric: Metric, alone: Mapping[str, Line]) -> tuple[float, float]:
    """All values with a little room, and not beyond what the metric can be."""
    every = [line for group in (lines.sites, alone) for line in group.values()]
    told = [point.value for line in every for point in line if point.value is not None]
    low, high = (min(told), max(told)) if told else (0.0, 1.0)
    room = max(0.02, 0.08 * (high - low))
    top = high + room if metric.unit else min(1.02, high + room)
    return max(0.0 if metric.unit else -0.02, low - room), top
