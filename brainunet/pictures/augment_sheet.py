"""A sheet of what augmentation does to one patch: as it is, each change alone, and the whole preset drawn several times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from brainunet.files import writing_aside
from brainunet.labels import TUMOUR_LABELS, Modality
from brainunet.pictures.palette import ON_GREY, SIDES

# inches: one picture, the gaps beside it and beside a tile, the words over a tile, the heading, the legend
_SIDE, _GAP, _BETWEEN, _WORDS, _HEADING, _LEGEND = 1.75, 0.05, 0.2, 0.55, 0.55, 0.35
_TILES_ACROSS: Final[Mapping[int, int]] = MappingProxyType({1: 4, 2: 3})  # by the number of modalities; else two


@dataclass(frozen=True, eq=False)
class Tile:
    """One patch on the sheet.

    Attributes:
        title: what was done to it.
        note: with which strength; may be empty.
        image: (C, X, Y, Z), 0 outside the brain.
        label: (X, Y, Z) in ``Label`` numbers.
    """

    title: str
    note: str
    image: npt.NDArray[np.float32]
    label: npt.NDArray[np.uint8]


def draw_sheet(path: Path, tiles: Sequence[Tile], modalities: Sequence[Modality], heading: str) -> None:
    """Write the sheet as PNG: of each tile and modality the axial and the coronal slice with the most tumour.

    Grey values are those of the first tile: a change of brightness shows. Air is black. The patient's left is on the right.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    across = _TILES_ACROSS.get(len(modalities), 2)
    down = -(-len(tiles) // across)
    step = 2 * len(modalities) * (_SIDE + _GAP) - _GAP + _BETWEEN  # from one tile to the next
    wide, high = across * step, _HEADING + down * (_WORDS + _SIDE) + _LEGEND
    # Every place is worked out here: a solver's last digit depends on where in memory it ran, and would show in the pixels.
    figure = Figure(figsize=(wide, high))
    figure.text(0.5, 1 - 0.08 / high, f"{heading}\n{SIDES}", fontsize=12, ha="center", va="top")
    greys = [_grey_range(tiles[0].image, channel) for channel in range(len(modalities))]
    for i, tile in enumerate(tiles):
        left, top = _BETWEEN / 2 + i % across * step, high - _HEADING - i // across * (_WORDS + _SIDE)
        middle = left + (step - _BETWEEN) / 2
        figure.text(middle / wide, (top - 0.12) / high, f"{tile.title}\n{tile.note}", fontsize=8, ha="center", va="top")
        for j in range(2 * len(modalities)):
            channel, axis = j // 2, (2, 1)[j % 2]
            place = (left + j * (_SIDE + _GAP), top - _WORDS - _SIDE, _SIDE, _SIDE)
            axes = figure.add_axes((place[0] / wide, place[1] / high, place[2] / wide, place[3] / high))
            _picture(axes, tile, channel, axis, greys[channel])
            if i < across and (len(modalities) > 1 or i == 0):
                axes.set_title(f"{modalities[channel]}, {'axial' if axis == 2 else 'coronal'}", fontsize=7, pad=2)
    lines = [Line2D([], [], color=colour, label=label.name) for label, colour in ON_GREY.items()]
    figure.legend(handles=lines, loc="lower center", ncols=len(lines), fontsize=9, frameon=False)
    with writing_aside(path) as aside:
        figure.savefig(aside, dpi=110, format="png")


def _grey_range(image: npt.NDArray[np.float32], channel: int) -> tuple[float, float]:
    inside = image[channel][(image != 0).any(axis=0)]
    if not inside.size:
        return 0.0, 1.0
    low, high = np.percentile(inside, (0.5, 99.5))
    return float(low) - 0.1 * float(high - low), float(high)  # the darkest tissue stands out from air


def _picture(axes: Any, tile: Tile, channel: int, axis: int, greys: tuple[float, float]) -> None:
    where = _slice_with_most_tumour(tile.label, axis)
    plane = np.take(tile.image[channel], where, axis)
    air = ~(np.take(tile.image, where, axis + 1) != 0).any(axis=0) | ~tile.image[channel].any()  # a missing modality is all air
    axes.imshow(np.where(air, greys[0], plane).T, cmap="gray", vmin=greys[0], vmax=greys[1], origin="lower")
    marks = np.take(tile.label, where, axis).T
    for label in TUMOUR_LABELS:
        if (marks == label).any() and (marks != label).any():
            axes.contour(marks == label, levels=[0.5], colors=ON_GREY[label], linewidths=0.7)
    axes.invert_xaxis()  # the first axis runs to the patient's right, which is shown on the left
    axes.set_axis_off()


def _slice_with_most_tumour(label: npt.NDArray[np.uint8], axis: int) -> int:
    """The middle one where there is no tumour."""
    areas = (label > 0).sum(axis=tuple(other for other in range(3) if other != axis))
    return int(areas.argmax()) if areas.any() else label.shape[axis] // 2
