"""What private training has cost, and what travels over the line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import plotly.graph_objects as go

from brainunet_dashboard.charts.canvas import MARKED_ROUNDS, NO_LOOK, by_round, make_room, mode_of
from brainunet_dashboard.palette import GREY, Look
from brainunet_dashboard.words import in_chart

AT: Final = "<br>round %{x}: %{y:.1f} MB<extra></extra>"


def epsilon_chart(
    by_site: Mapping[str, Sequence[tuple[int, float]]], looks: Mapping[str, Look], target: float | None, *, ink: str
) -> go.Figure:
    """A line for each site, and the federation's target across."""
    chart = by_round("epsilon of this run so far", (number for points in by_site.values() for number, _ in points))
    for site, points in by_site.items():
        style, name = looks.get(site, NO_LOOK), in_chart(site)
        chart.add_scatter(
            x=[number for number, _ in points],
            y=[epsilon for _, epsilon in points],
            mode=mode_of(len(points)),
            name=name,
            line={"color": style.colour, "dash": style.dash},
            marker={"symbol": style.mark},
            meta=name,
            hovertemplate="%{meta}<br>after round %{x}: epsilon %{y:.3f}<extra></extra>",
        )
    if target is not None:
        chart.add_hline(y=target, line={"color": ink, "dash": "dash"}, annotation_text=f"target {target:g}")
    chart.update_yaxes(rangemode="tozero")
    make_room(chart, len(by_site))
    return chart


def traffic_chart(
    by_site: Mapping[str, Sequence[tuple[int, int, int]]], looks: Mapping[str, Look], *, cumulated: bool
) -> go.Figure:
    """Megabytes of each site by round, one on the other; or their sum so far.

    Many rounds are areas: a browser takes seconds over thousands of bars.
    """
    rounds = {point[0] for points in by_site.values() for point in points}
    chart = by_round("MB so far, both ways" if cumulated else "MB in the round, both ways", rounds)
    for site, points in by_site.items():
        style, name = looks.get(site, NO_LOOK), in_chart(site)
        x, y = [point[0] for point in points], [point[2 if cumulated else 1] / 1e6 for point in points]
        hover = "%{meta}" + AT
        if cumulated:
            line, mark = {"color": style.colour, "dash": style.dash}, {"symbol": style.mark}
            chart.add_scatter(x=x, y=y, mode=mode_of(len(x)), name=name, meta=name, line=line, marker=mark, hovertemplate=hover)
        elif len(rounds) > MARKED_ROUNDS:
            area: dict[str, Any] = {"line": {"width": 0}, "fillcolor": style.colour, "fillpattern": _pattern(style)}
            chart.add_scatter(x=x, y=y, mode="lines", stackgroup="sites", name=name, meta=name, hovertemplate=hover, **area)
        else:
            bar = {"color": style.colour, "line": {"width": 0}, "pattern": _pattern(style)}
            chart.add_bar(x=x, y=y, name=name, meta=name, marker=bar, hovertemplate=hover)
    if cumulated:
        sums: dict[int, int] = {}
        for points in by_site.values():
            for number, here, _ in points:
                sums[number] = sums.get(number, 0) + here
        x = sorted(sums)
        y = [total / 1e6 for total in accumulate(sums[number] for number in x)]
        whole = {"color": GREY, "width": 3}
        chart.add_scatter(x=x, y=y, mode=mode_of(len(x)), name="all sites", line=whole, hovertemplate=f"all sites{AT}")
    chart.update_layout(barmode="stack")
    chart.update_yaxes(rangemode="tozero")
    make_room(chart, len(by_site))
    return chart


def _pattern(style: Look) -> dict[str, Any]:
    return {"shape": style.pattern, "fillmode": "overlay", "fgcolor": "rgba(255,255,255,0.7)", "size": 6}
