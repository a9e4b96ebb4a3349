"""The picture that comes with a segmentation: three planes through the tumour, its outlines, volumes and what it is not for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from brainunet.files import writing_aside
from brainunet.pictures.palette import ON_GREY, SIDES
from brainunet.pictures.qc import outline, planes, shown, window

PURPOSE: Final = "Research use only. Not a medical device."
NAMES: Final = ("sagittal", "coronal", "axial")


def draw_preview(
    path: Path,
    title: str,
    image: npt.NDArray[Any],
    labels: npt.NDArray[np.uint8],
    brain: npt.NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    volumes_ml: Mapping[str, float],
    *,
    demo: str = "",
) -> None:
    """Write a PNG: the axial, coronal and sagittal plane with most tumour; without any, through the middle of the brain.

    Args:
        title: shown as it is; a letter that the picture's font does not have becomes a box.
        image, labels, brain: (X, Y, Z) in canonical orientation.
        volumes_ml: name -> volume, as it is to be told.
        demo: what to say of a model of made-up cases; empty for any other.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    size_mm = [n * side for n, side in zip(image.shape, spacing_mm, strict=True)]
    figure = Figure(figsize=(10.5, 4.4), dpi=100, facecolor="black")
    low, white = window(image[brain])
    at = planes(labels, brain)
    for column, axis in enumerate((2, 1, 0)):
        axes = figure.add_axes((0.005 + column / 3, 0.16, 0.323, 0.72))
        axes.set_axis_off()
        across, up = (size_mm[other] for other in range(3) if other != axis)
        extent = (0.0, across, 0.0, up)
        axes.imshow(shown(image, axis, at[axis]), cmap="gray", vmin=low, vmax=white, extent=extent, interpolation="antialiased")
        outline(axes, shown(labels, axis, at[axis]), extent)
        axes.set_title(NAMES[axis], color="white", fontsize=9, pad=2)
        if axis != 0:
            for x, side, to in ((0.01, "R", "left"), (0.99, "L", "right")):
                axes.text(x, 0.5, side, color="white", fontsize=9, ha=to, transform=axes.transAxes)
    lines = [Line2D([], [], color=colour, label=label.name) for label, colour in ON_GREY.items()]
    figure.legend(handles=lines, loc="lower right", ncols=3, frameon=False, labelcolor="white", fontsize=9)
    volumes = ", ".join(f"{name} {ml:.1f} ml" for name, ml in volumes_ml.items())
    figure.text(0.01, 0.95, title, color="white", fontsize=11, parse_math=False)  # a file's name may hold "$"
    figure.text(0.01, 0.09, volumes, color="white", fontsize=9)
    figure.text(0.01, 0.03, f"{PURPOSE} {SIDES[0].upper()}{SIDES[1:]}.", color="white", fontsize=8)
    if demo:
        figure.text(0.99, 0.95, demo, color="#E69F00", fontsize=11, weight="bold", ha="right")
    with writing_aside(path, durable=False) as aside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ ")
        figure.savefig(aside, format="png", facecolor="black")
    figure.clear()
