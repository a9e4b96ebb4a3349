"""What charts have in common: the empty chart, its axes, and what a hover says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import plotly.graph_objects as go

from brainunet_dashboard.palette import GREY, Look
from brainunet_dashboard.queries.figures import Metric
from brainunet_dashboard.words import in_chart, visible

HEIGHT: Final = 390
MARKED_ROUNDS: Final = 60  # beyond these a line's points run into each other
FEW_ROUNDS: Final = 14  # each has its number below the axis
FEW_LINES: Final = 8
LEGEND_PX: Final = 10  # for each line beyond those
NO_LOOK: Final = Look(GREY)
SCORED_ROUND: Final = "round (0: the model it began with)"


def by_round(y: str, rounds: Iterable[int], x: str = "round") -> go.Figure:
    chart = empty(x, y)
    found = list(rounds)
    if found and max(found) - min(found) <= FEW_ROUNDS:
        chart.update_xaxes(dtick=1)  # there is no round 1.5
    return chart


def empty(x: str, y: str) -> go.Figure:
    chart = go.Figure()
    chart.update_layout(
        height=HEIGHT,
        margin={"l": 8, "r": 8, "t": 16, "b": 8},
        legend={"orientation": "h", "yanchor": "top", "y": -0.22, "x": 0, "traceorder": "normal"},
        hovermode="closest",
        uirevision="same",  # a refresh leaves what somebody has zoomed into
        xaxis={"title": {"text": x}, "tickformat": "~f", "automargin": True},
        yaxis={"title": {"text": y}, "automargin": True},
    )
    return chart


def make_room(chart: go.Figure, lines: int) -> None:
    """For a legend of many lines: on a phone two of them share a row, and plotly takes the rows from the drawing."""
    chart.update_layout(height=HEIGHT + LEGEND_PX * max(0, lines - FEW_LINES))


def name_rows(chart: go.Figure, names: Sequence[str]) -> None:
    """Names from top to bottom. They are labels of numbers, since two long ones may look alike when they are cut."""
    labels = [in_chart(visible(name, 18)) for name in names]
    chart.update_yaxes(
        autorange="reversed", tickmode="array", tickvals=list(range(len(names))), ticktext=labels, zeroline=False
    )


def mode_of(points: int) -> str:
    return "lines+markers" if points <= MARKED_ROUNDS else "lines"


def axis(metric: Metric, structure: str) -> str:
    return f"{metric.title} of {structure}" + (f" ({metric.unit})" if metric.unit else "")


def hover(metric: Metric, structure: str) -> str:
    """For traces whose ``meta`` is a name and whose ``customdata`` are numbers of cases."""
    figure = f"{metric.title} of {structure} %{{y:.{metric.digits}f}}" + (f" {metric.unit}" if metric.unit else "")
    return f"%{{meta}}<br>round %{{x}}: {figure} (n = %{{customdata}})<extra></extra>"
