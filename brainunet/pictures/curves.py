"""Learning curves: loss by step, and the Dice of each region wherever the validation cases were scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from brainunet.files import writing_aside
from brainunet.pictures.palette import ON_WHITE
from brainunet.records import Structure
from brainunet.study.told import REGIONS, without


def draw_curves(
    path: Path,
    title: str,
    losses: Sequence[float],
    scores: Sequence[tuple[int, Mapping[Structure, float | None]]],
    cases: int,
    empty: Mapping[Structure, int],
) -> None:
    """Write a PNG.

    Args:
        losses: one per step, in order.
        scores: step -> region -> mean Dice over ``cases`` validation cases; None where it has none.
        empty: how many of these have none of a region; one that no case has is named and not drawn.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    figure = Figure(figsize=(9, 3.6))
    # fixed margins: equal curves give equal pictures, which a layout solver does not promise
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.14, top=0.89, wspace=0.18)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    left, right = figure.subplots(1, 2)
    steps = np.arange(1, len(losses) + 1)
    left.plot(steps, losses, color="0.8", linewidth=0.7, label="each step")
    width = max(1, len(losses) // 40)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    left.plot(steps[width - 1 :], smooth, color="0.15", linewidth=1.5, label=f"mean of {width}")
    left.set(xlabel="step", ylabel="loss")
    left.legend(frameon=False, fontsize=8)
    for region in REGIONS:
        known = [(step, value) for step, means in scores if (value := means.get(region)) is not None]
        if known and empty[region] == cases:
            right.plot([], [], " ", label=f"{region} in no case")
        elif known:
            label = f"{region}{without(empty[region])}"
            right.plot(*zip(*known, strict=True), color=ON_WHITE[region], marker="o", markersize=3, linewidth=1.5, label=label)
    right.set(xlabel="step", ylabel=f"Dice, mean of {cases} validation case{'s' * (cases != 1)}", ylim=(-0.02, 1.02))
    if right.lines:
        right.legend(frameon=False, fontsize=8, loc="lower right")
    else:
        right.text(0.5, 0.5, "no validation case", ha="center", va="center", color="0.4", transform=right.transAxes)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    with writing_aside(path) as aside:
        figure.savefig(aside, dpi=130, format="png", metadata={"Software": None})
