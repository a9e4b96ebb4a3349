"""A small picture of a case for quality control: three planes through the tumour, modalities side by side."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from brainunet.data.checks import Facts
from brainunet.pictures.palette import ON_GREY

MOST_BYTES: Final = 60_000
PIXELS_PER_MM: Final = 1.15
MOST_PIXELS: Final = 900  # of a side: a wrong spacing in a header must not make a picture of gigabytes
GAP_MM: Final = 4.0
QUALITIES: Final = (82, 70, 55, 40, 25)


def qc_picture(facts: Facts) -> bytes | None:
    """A JPEG of less than 60 kB; None for a case whose images can't be shown together.

    Columns are modalities, rows the axial, coronal and sagittal plane with most tumour (without a segmentation, through the
    middle of the brain). As in radiology, the patient's right is on the left; sagittal planes look to the left. Grey runs from
    the 0.5th to the 99.5th percentile of the brain.
    """
    if not facts.images:
        return None
    size_mm = np.array(facts.brain.shape) * facts.spacing_mm
    x_mm, y_mm, z_mm = (float(side) for side in size_mm)
    # (normal axis, width, height) of each row
    rows = ((2, x_mm, y_mm), (1, x_mm, z_mm), (0, y_mm, z_mm))
    column_mm, head_mm = max(x_mm, y_mm) + GAP_MM, 0.07 * max(x_mm, y_mm)
    wide, high = column_mm * len(facts.images), sum(height + GAP_MM for _, _, height in rows) + head_mm
    scale = min(PIXELS_PER_MM * 160 / max(x_mm, y_mm), MOST_PIXELS / wide, MOST_PIXELS / high)
    figure = Figure(figsize=(wide * scale / 100, high * scale / 100), dpi=100, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    at = planes(facts.label, facts.brain)
    for column, (modality, image) in enumerate(facts.images.items()):
        top = high - head_mm
        left = column * column_mm
        axes.text(
            left + column_mm / 2, high - head_mm / 2, modality, color="white", ha="center", va="center", fontsize=9
        )  # fmt: skip
        low, white = window(image[facts.brain])
        for axis, width, height in rows:
            start = left + (column_mm - width) / 2
            extent = (start, start + width, top - height, top)
            plane = shown(image, axis, at[axis])
            axes.imshow(plane, cmap="gray", vmin=low, vmax=white, extent=extent, interpolation="antialiased")
            if facts.label is not None:
                outline(axes, shown(facts.label, axis, at[axis]), extent)
            top -= height + GAP_MM
    axes.set_xlim(0, wide)
    axes.set_ylim(0, high)
    axes.set_aspect("auto")
    picture = _jpeg(figure)
    figure.clear()  # its parts refer to each other, and would hold their pixels until Python looks for such rings
    return picture


def planes(label: npt.NDArray[np.uint8] | None, brain: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    """On each axis the plane with most tumour; the middle of the brain where there is none."""
    tumour = label is not None and bool(label.any())
    mask = label > 0 if tumour and label is not None else brain
    sums = [mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    if tumour:
        x, y, z = (int(np.argmax(areas)) for areas in sums)
    else:
        x, y, z = (int(np.searchsorted(np.cumsum(areas), areas.sum() / 2)) for areas in sums)
    return x, y, z


def shown(array: npt.NDArray[Any], axis: int, at: int) -> npt.NDArray[Any]:
    """A plane as rows from the top down: the patient's right, or front, to the left."""
    plane = np.take(array, at, axis=axis)
    return np.asarray(plane[::-1, ::-1].T)


def window(brain: npt.NDArray[Any]) -> tuple[float, float]:
    """The intensities (N,) that are to be black and white."""
    low, high = (float(end) for end in np.percentile(brain, (0.5, 99.5)))
    low = min(low, 0.0)  # the background is black
    return low, high if high > low else low + 1.0


def outline(axes: Any, plane: npt.NDArray[np.uint8], extent: tuple[float, float, float, float]) -> None:
    """Draw the border of each label of a plane."""
    for label, colour in ON_GREY.items():
        mask = plane == label
        if mask.any() and not mask.all() and min(mask.shape) > 1:
            axes.contour(mask.astype(np.float32), levels=[0.5], colors=[colour], linewidths=0.8, extent=extent, origin="upper")


def _jpeg(figure: Figure) -> bytes:
    picture = b""
    for quality in QUALITIES:
        out = io.BytesIO()
        figure.savefig(out, format="jpeg", facecolor="black", pil_kwargs={"quality": quality, "optimize": True})
        picture = out.getvalue()
        if len(picture) < MOST_BYTES:
            break
    return picture
