"""What each site has gained, and what it reaches alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from brainunet_dashboard.charts.canvas import NO_LOOK, axis, empty, name_rows
from brainunet_dashboard.palette import GREY, Look
from brainunet_dashboard.queries.figures import Metric
from brainunet_dashboard.words import in_chart


def gain_chart(rows: Sequence[Mapping[str, Any]], looks: Mapping[str, Look], metric: Metric, structure: str) -> go.Figure:
    """A line for each site from the model it began with to the latest one, with what it reached alone beside it."""
    chart = empty(axis(metric, structure), "")
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
            chart.add_scatter(  # what the mark means; it has no site's colour
                x=[None],
                y=[None],
                mode="markers",
                name=label,
                marker={"symbol": mark, "size": 11, "color": GREY, "line": {"width": 2, "color": GREY}},
            )
            chart.add_scatter(
                x=[row[key] for row in told],
                y=[places[row["site"]] for row in told],
                text=[in_chart(row["site"]) for row in told],
                customdata=[row["n"] for row in told],
                mode="markers",
                name=label,
                showlegend=False,
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
    name_rows(chart, list(places))
    return chart
