"""How much surface there is between eight voxels.

Between the centres of 2 x 2 x 2 voxels lies a cube, and the surface cuts those of its edges that join a voxel inside the mask
to one outside, each in the middle (marching cubes: Lorensen and Cline, SIGGRAPH 1987). Of the voxels inside, those that share
an edge of the cube are cut off together, by one of six caps; where more than four are inside, those outside are cut off. Two
of the caps are bent, so their area depends on the triangles they are made of; these are the ones of
google-deepmind/surface-distance.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

Corner = tuple[int, int, int]

CORNERS: Final[tuple[Corner, ...]] = tuple((x, y, z) for x, y, z in itertools.product((0, 1), repeat=3))
"""Bit i of a code says whether the voxel at CORNERS[i] is inside."""


@lru_cache(maxsize=64)
def areas_mm2(spacing_mm: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Area of the surface for each of the 256 codes (256,); all outside or all inside: 0.

    >>> areas_mm2((1.0, 1.0, 3.0))[0b11110000]  # the four voxels of the upper x: a face of 1 x 3 mm
    np.float64(3.0)
    """
    x, y, z = spacing_mm
    faces = np.array([y * z, x * z, x * y])  # area of a voxel's face across each axis
    table = np.array([sum(np.linalg.norm(normal * faces) for normal in _normals(code)) for code in range(256)])
    table.setflags(write=False)
    return table


def _normals(code: int) -> list[npt.NDArray[np.float64]]:
    """One vector per flat piece of the surface, without signs: its shadow across each axis, in faces of a voxel."""
    inside = [corner for bit, corner in enumerate(CORNERS) if code >> bit & 1]
    if len(inside) > 4:
        inside = [corner for corner in CORNERS if corner not in inside]
    return [np.array(piece) / 8 for cluster in _clusters(inside) for piece in _cap(cluster)]


def _clusters(corners: Sequence[Corner]) -> list[list[Corner]]:
    """The corners, those together that edges of the cube join."""
    clusters: list[list[Corner]] = []
    for corner in corners:
        beside = [cluster for cluster in clusters if any(_axis_between(corner, other) is not None for other in cluster)]
        clusters = [cluster for cluster in clusters if cluster not in beside] + [[corner, *itertools.chain(*beside)]]
    return clusters


def _axis_between(a: Corner, b: Corner) -> int | None:
    """The axis of the edge that joins two corners, if one does."""
    apart = [axis for axis in range(3) if a[axis] != b[axis]]
    return apart[0] if len(apart) == 1 else None


def _cap(cluster: Sequence[Corner]) -> list[list[int]]:
    """The flat pieces that cut off one to four joined corners, their shadows in eighths of a face."""
    edges = [axis for a, b in itertools.combinations(cluster, 2) if (axis := _axis_between(a, b)) is not None]

    def across(*axes: int, eighths: int) -> list[int]:
        return [eighths if axis in axes else 0 for axis in range(3)]

    match len(cluster), len(edges), len(set(edges)):
        case 1, _, _:  # a triangle
            return [[1, 1, 1]]
        case 2, _, _:  # a slope along the edge
            return [[0 if axis in edges else 4 for axis in range(3)]]
        case 3, _, _:  # an L: a half face above it, and a slope that rises along the diagonal
            return [[0 if axis in edges else 4 for axis in range(3)], [3, 3, 3]]
        case 4, 4, _:  # a square: the face that divides the cube
            return [[0 if axis in edges else 8 for axis in range(3)]]
        case _ if _middle(cluster) is None:  # a corner and its three neighbours: a regular hexagon
            return [[6, 6, 6]]
        case _:  # a path along all three axes: a twisted hexagon, two slopes beside its middle edge
            middle = _middle(cluster)
            assert middle is not None
            slopes = [across(middle, axis, eighths=2) for axis in range(3) if axis != middle]
            return [[4, 4, 4], *slopes]


def _middle(cluster: Sequence[Corner]) -> int | None:
    """The axis of a path's middle edge: the one between the two corners that have two neighbours; None for a star."""
    inner = [a for a in cluster if sum(_axis_between(a, b) is not None for b in cluster) == 2]
    return _axis_between(*inner) if len(inner) == 2 else None
