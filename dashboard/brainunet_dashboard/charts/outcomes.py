"""What each site did in each round, as a heat map."""

from __future__ import annotations

from typing import Final

import plotly.graph_objects as go

from brainunet_dashboard.charts.canvas import by_round, name_rows
from brainunet_dashboard.palette import OUTCOME_COLOURS, OUTCOME_LETTERS
from brainunet_dashboard.queries.rounds import OUTCOMES, Grid
from brainunet_dashboard.words import in_chart

MOST_LETTERS: Final = 600  # cells that are not yet too small for one


def outcome_chart(grid: Grid) -> go.Figure:
    """A cell for each site and round, with a letter where there is room for one; its legend is :func:`outcome_legend`."""
    chart = by_round("", grid.rounds)
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
        zmin=-0.5,
        zmax=len(OUTCOMES) - 0.5,
        colorscale=scale,
        showscale=False,
        xgap=1 if len(grid.rounds) <= 100 else 0,
        ygap=1,
        hovertemplate="round %{x}<br>%{customdata}<extra></extra>",
    )
    chart.update_layout(height=max(180, 90 + 26 * len(grid.sites)))
    name_rows(chart, grid.sites)
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
