"""Box plots of a folder's scores: every case a point, every metric a panel, every region a box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from brainunet.files import writing_aside
from brainunet.metrics import METRICS
from brainunet.metrics.report import STRUCTURES
from brainunet.metrics.surface import MISSED_MM
from brainunet.pictures.palette import ON_WHITE
from brainunet.records import CaseScore, Structure

_PER_ROW = 4


def plot_scores(path: Path, scores: Sequence[CaseScore], metrics: Sequence[str], title: str) -> None:
    """The metrics that judge (of those asked for; all of them if none does) as PNG; a case without a value is no point.

    Raises:
        ValueError: no case or no metric.
    """
    if not scores or not metrics:
        raise ValueError("a picture needs a case and a metric")
    shown = [name for name in metrics if METRICS[name].best is not None and METRICS[name].unit != "lesions"] or list(metrics)
    across = min(_PER_ROW, len(shown))
    down = -(-len(shown) // across)
    wide, high = max(5.4, 0.2 + 3.4 * across), 0.9 + 3.4 * down  # the heading needs its width too
    figure = Figure(figsize=(wide, high))
    # fixed margins, in inches: equal scores give equal pictures, which a layout solver does not promise
    figure.subplots_adjust(left=0.6 / wide, right=1 - 0.2 / wide, bottom=0.5 / high, top=1 - 1 / high, wspace=0.2, hspace=0.3)
    panels = figure.subplots(down, across, squeeze=False).flat
    for axes, name in zip(panels, shown, strict=False):
        _panel(axes, name, {structure: _values(scores, structure, name) for structure in STRUCTURES})
    for axes in list(panels)[len(shown) :] if len(shown) < across * down else ():
        axes.set_axis_off()
    figure.suptitle(f"{title}\nbox: quartiles and median; diamond: mean; each point a case")
    with writing_aside(path) as aside:
        figure.savefig(aside, dpi=120, format="png")


def _panel(axes: Any, name: str, groups: Mapping[Structure, Sequence[float]]) -> None:
    metric = METRICS[name]
    generator = np.random.default_rng(0)  # equal scores give equal pictures
    shown = [(place, structure, values) for place, (structure, values) in enumerate(groups.items(), start=1) if values]
    if shown:
        boxes = axes.boxplot(  # all of them at once: a call for each would take most of the picture's time
            [values for _, _, values in shown],
            positions=[place for place, _, _ in shown],
            widths=0.6,
            showfliers=False,  # every case is drawn as a point
            patch_artist=True,
            boxprops={"alpha": 0.25},
            medianprops={"linewidth": 2},
        )
    for i, (place, structure, values) in enumerate(shown):
        colour, pair = ON_WHITE[structure], slice(2 * i, 2 * i + 2)
        for line in (boxes["boxes"][i], boxes["medians"][i], *boxes["whiskers"][pair], *boxes["caps"][pair]):
            line.set_color(colour)
        axes.scatter(place + generator.uniform(-0.18, 0.18, len(values)), values, s=10, color=colour, alpha=0.6, linewidths=0)
        axes.scatter([place], [np.mean(values)], marker="D", s=28, color="black", zorder=3)
    axes.set_xticks(range(1, len(groups) + 1))
    axes.set_xticklabels([f"{structure}\nn = {len(values)}" for structure, values in groups.items()])
    axes.set_xlim(0.4, len(groups) + 0.6)
    better = "" if metric.best is None else ", higher is better" if metric.best else ", lower is better"
    axes.set_title(f"{name}{better}", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", alpha=0.3)
    if metric.unit == "":
        axes.set_ylim(-0.03, 1.03)
    elif metric.unit == "mm":
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(-0.1, 2 * MISSED_MM)
        axes.set_yticks([0, 1, 3, 10, 30, 100, MISSED_MM], labels=["0", "1", "3", "10", "30", "100", f"{MISSED_MM:g}"])
        axes.set_yticks([], minor=True)


def _values(scores: Sequence[CaseScore], structure: str, metric: str) -> list[float]:
    rows = (row for case in scores for row in case.rows)
    return [row.value for row in rows if row.structure == structure and row.metric == metric and row.value is not None]
