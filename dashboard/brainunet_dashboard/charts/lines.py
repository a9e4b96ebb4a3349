"""Figures by round: a line for each site or run, and the band in which the sites lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from brainunet_dashboard.charts.canvas import MARKED_ROUNDS, NO_LOOK, SCORED_ROUND, axis, by_round, hover, make_room, mode_of
from brainunet_dashboard.palette import Look
from brainunet_dashboard.queries.figures import Line, Lines, Metric, Point
from brainunet_dashboard.words import in_chart


def line_chart(
    lines: Lines,
    looks: Mapping[str, Look],
    metric: Metric,
    structure: str,
    *,
    ink: str,
    alone: Mapping[str, Line] | None = None,
) -> go.Figure:
    """A line for each site and the mean over all cases; withheld points as crosses at the foot; dotted, each site ``alone``.

    Args:
        ink: colour of the mean: dark on a light page, light on a dark one.
    """
    rounds = lines.rounds
    chart = by_round(axis(metric, structure), rounds, SCORED_ROUND)
    low, high = _span(lines, metric, alone or {})
    for site, line in lines.sites.items():
        style, name = looks.get(site, NO_LOOK), in_chart(site)
        n = next((point.n for point in reversed(line) if point.value is not None), None)
        shown = _with_gaps(line, rounds)
        chart.add_scatter(
            x=[point.round for point in shown],
            y=[point.value for point in shown],
            customdata=[point.n for point in shown],
            mode=_mode(shown, len(rounds)),
            name=f"{name} (no figure)" if n is None else f"{name} (n = {n})",
            legendgroup=name,
            line={"color": style.colour, "dash": style.dash, "width": 1.8},
            marker={"symbol": style.mark, "size": _sizes(shown, len(rounds))},
            meta=name,
            hovertemplate=hover(metric, structure),
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
            hovertemplate=hover(metric, structure),
        )
    chart.add_scatter(
        x=[point.round for point in lines.overall],
        y=[point.value for point in lines.overall],
        customdata=[point.n for point in lines.overall],
        mode=mode_of(len(rounds)),
        name="mean over all cases",
        line={"color": ink, "width": 3.5},
        marker={"size": 7},
        meta="mean over all cases",
        hovertemplate=hover(metric, structure),
    )
    chart.update_yaxes(range=[low, high])
    make_room(chart, len(lines.sites) + len(alone or {}))
    return chart


def band_chart(rows: Sequence[Mapping[str, Any]], metric: Metric, structure: str, *, ink: str) -> go.Figure:
    """How the sites lie in each round: the span of all, the middle half, and the median."""
    rounds = [row["round"] for row in rows]
    chart = by_round(axis(metric, structure), rounds, SCORED_ROUND)
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
        mode=mode_of(len(rows)),
        name="median of the sites",
        line={"color": ink, "width": 2.5},
        hovertemplate="round %{x}: median %{y:.3f} of %{customdata[4]} sites<br>middle half %{customdata[1]:.3f} to "
        "%{customdata[2]:.3f}<br>all %{customdata[0]:.3f} to %{customdata[3]:.3f}<extra></extra>",
    )
    return chart


def runs_chart(
    means: Mapping[str, Line],
    alone: Mapping[str, Sequence[tuple[int, float]]],
    looks: Mapping[str, Look],
    titles: Mapping[str, str],
    metric: Metric,
    structure: str,
) -> go.Figure:
    """A line for each run: its mean over all cases; dotted, the mean of what its sites reach alone.

    Args:
        looks: of each run; whichever are shown, a run keeps its own.
        titles: how the legend calls each run.
    """
    rounds = (point.round for line in means.values() for point in line)
    chart = by_round(axis(metric, structure), rounds, SCORED_ROUND)
    for run, line in means.items():
        style, name = looks.get(run, NO_LOOK), in_chart(titles.get(run, run))
        told = [point for point in line if point.value is not None]
        chart.add_scatter(
            x=[point.round for point in told],
            y=[point.value for point in told],
            customdata=[point.n for point in told],
            mode=mode_of(len(told)),
            name=name,
            line={"color": style.colour, "dash": style.dash, "width": 2.5},
            marker={"symbol": style.mark},
            meta=name,
            hovertemplate=hover(metric, structure),
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


def _with_gaps(line: Line, rounds: Sequence[int]) -> Line:
    """The line with a point without a value in each round that the site has none of: no line may be drawn across it."""
    own = {point.round: point for point in line}
    return [own.get(k, Point(k, None, 0)) for k in rounds if line and line[0].round <= k <= line[-1].round]


def _mode(line: Line, rounds: int) -> str:
    """A mark costs a browser far more than a piece of line, also one of size 0."""
    return "lines+markers" if any(_sizes(line, rounds)) else "lines"


def _sizes(line: Line, rounds: int) -> list[int]:
    """Of the marks: where there are many rounds only those have one that no line leads to."""
    if rounds <= MARKED_ROUNDS:
        return [6] * len(line)
    there = [False, *(point.value is not None for point in line), False]
    return [
        6 if here and not (before or after) else 0 for before, here, after in zip(there, there[1:], there[2:], strict=False)
    ]


def _span(lines: Lines, metric: Metric, alone: Mapping[str, Line]) -> tuple[float, float]:
    """All values with a little room, and not beyond what the metric can be."""
    every = [line for group in (lines.sites, alone) for line in group.values()]
    told = [point.value for line in every for point in line if point.value is not None]
    low, high = (min(told), max(told)) if told else (0.0, 1.0)
    room = max(0.02, 0.08 * (high - low))
    top = high + room if metric.unit else min(1.02, high + room)
    return max(0.0 if metric.unit else -0.02, low - room), top
