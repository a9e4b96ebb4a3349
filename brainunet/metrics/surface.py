"""Distances between surfaces in millimetres, each surface element weighing by its area.

Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy", JMIR 2021, arXiv:1809.04430,
define them so; google-deepmind/surface-distance, which the BraTS challenge scores with, computes them so. Weighing by area
is what makes a figure independent of how a surface lies in the grid: along an oblique face voxels are denser than along a
flat one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from brainunet.metrics.pair import Mask, Spacing, require_one_shape
from brainunet.metrics.surfels import CORNERS, areas_mm2

MISSED_MM: float = 374.0
"""What the challenge charges for a surface that is not there: the diagonal of its grid of 240 x 240 x 155 mm is 373.1."""

# Sides computed from an affine of float32 numbers are 1.0000001 mm as easily as 1; a distance of one such voxel is 1 mm.
_SLACK_MM = 1e-4

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Surface:
    """The elements of one mask's surface: points_mm (N, 3), areas_mm2 (N,). An empty mask has none."""

    points_mm: FloatArray
    areas_mm2: FloatArray


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """From each element of one surface to the nearest of the other, infinite where the other has none, and its area.

    Attributes:
        predicted_mm: (N,) from the prediction's surface to the truth's; predicted_mm2: the areas.
        truth_mm: (M,) from the truth's surface to the prediction's; truth_mm2: the areas.
    """

    predicted_mm: FloatArray
    predicted_mm2: FloatArray
    truth_mm: FloatArray
    truth_mm2: FloatArray


def surface_of(mask: Mask, spacing_mm: Spacing) -> Surface:
    """The surface of a mask (X, Y, Z): an element between any 2 x 2 x 2 voxels that are not all alike.

    Beyond the array there is nothing, so a mask that touches its edge is closed there.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([side - 1 for side in padded.shape], np.uint8)
    for bit, corner in enumerate(CORNERS):
        window = tuple(slice(low, low + side) for low, side in zip(corner, codes.shape, strict=True))
        codes |= padded[window] << bit
    at = np.nonzero((codes != 0) & (codes != 255))
    points = np.stack(at, axis=1).astype(np.float64) * np.asarray(spacing_mm, np.float64)
    return Surface(points, areas_mm2(spacing_mm)[codes[at]])


def distances_between(predicted: Surface, truth: Surface) -> SurfaceDistances:
    return SurfaceDistances(_nearest_mm(predicted, truth), predicted.areas_mm2, _nearest_mm(truth, predicted), truth.areas_mm2)


def surface_distances(predicted: Mask, truth: Mask, spacing_mm: Spacing) -> SurfaceDistances:
    """Distances between the surfaces of two masks (X, Y, Z), both ways.

    >>> ball, shifted = np.zeros((2, 9, 9, 9), bool)
    >>> ball[2:5, 2:5, 2:5] = shifted[2:5, 2:5, 4:7] = True
    >>> distances = surface_distances(shifted, ball, (1.0, 1.0, 3.0))
    >>> hd95_mm(distances), round(surface_dice(distances, tolerance_mm=1.0), 3)
    (6.0, 0.5)

    Raises:
        ValueError: masks of two shapes.
    """
    require_one_shape(predicted, truth)
    return distances_between(surface_of(predicted, spacing_mm), surface_of(truth, spacing_mm))


def hd95_mm(distances: SurfaceDistances) -> float:
    """95th percentile of the Hausdorff distance: the distance within which 95% of a surface's area lies, the worse direction.

    Both masks empty: 0.0; one empty: 374.0, the challenge's price.
    """
    predicted, truth = distances.predicted_mm.size, distances.truth_mm.size
    if not predicted or not truth:
        return MISSED_MM if predicted or truth else 0.0
    return max(
        _percentile_95(distances.predicted_mm, distances.predicted_mm2),
        _percentile_95(distances.truth_mm, distances.truth_mm2),
    )


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Normalised surface distance: the share of both surfaces' area that lies within a tolerance of the other surface.

    Both masks empty: 1.0; one empty: 0.0, as for Dice.
    """
    total = float(distances.predicted_mm2.sum() + distances.truth_mm2.sum())
    if total == 0:
        return 1.0
    limit = tolerance_mm + _SLACK_MM
    near = distances.predicted_mm2[distances.predicted_mm <= limit].sum()
    near += distances.truth_mm2[distances.truth_mm <= limit].sum()
    return min(1.0, float(near) / total)  # two orders of one sum can differ in the last bit


def _nearest_mm(of: Surface, to: Surface) -> FloatArray:
    if not len(to.points_mm):
        return np.full(len(of.points_mm), math.inf)
    # a tree of the surface is several times faster here than a distance transform of the volume; halving cells in the
    # middle saves the sorting, and surfaces are even enough for it
    tree = cKDTree(to.points_mm, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(of.points_mm)[0], np.float64)


def _percentile_95(distances_mm: FloatArray, areas_mm2: FloatArray) -> float:
    order = np.argsort(distances_mm)
    share = np.cumsum(areas_mm2[order])
    place = int(np.searchsorted(share / share[-1], 0.95))
    return float(distances_mm[order][min(place, len(order) - 1)])
