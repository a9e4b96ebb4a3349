"""The models of a run: which are there, which were published, and how good each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from brainunet_dashboard.charts.canvas import SCORED_ROUND, by_round
from brainunet_dashboard.palette import GREY
from brainunet_dashboard.words import in_chart


def lineage_chart(rows: Sequence[Mapping[str, Any]], *, ink: str) -> go.Figure:
    """The models of a run: those that are there, were removed to make room, were published, or were withdrawn again."""
    chart = by_round("mean Dice over ET, TC, WT", (row["round"] for row in rows), SCORED_ROUND)
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
        ("published", lambda row: row["releases"] and not row["withdrawn"], {"symbol": "star", "color": "#D55E00", "size": 15}),
        ("withdrawn", lambda row: row["withdrawn"], {"symbol": "x", "color": GREY, "size": 11}),
    ):
        found = [row for row in rows if wanted(row) and row["mean_dice"] is not None]
        if found:
            chart.add_scatter(
                x=[row["round"] for row in found],
                y=[row["mean_dice"] for row in found],
                text=[in_chart(row["releases"]) for row in found],
                customdata=[row["digest"][:12] for row in found],
                mode="markers+text" if any(row["releases"] for row in found) else "markers",
                textposition="top center",
                textfont={"color": ink},
                name=name,
                marker=mark,
                hovertemplate=f"round %{{x}}, {name}<br>mean Dice %{{y:.3f}}<br>%{{customdata}} %{{text}}<extra></extra>",
            )
    return chart
