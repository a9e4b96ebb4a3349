"""The challenge's metrics a second time, slowly: sets of voxels, triangles with corners, every distance to every point.

It shares nothing with ``brainunet.metrics`` but the definitions. For arrays of a few hundred voxels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Voxel = tuple[int, int, int]
Point = tuple[float, float, float]
Mask = npt.NDArray[np.bool_]
Element = tuple[Point, float]  # where it lies in mm, and its area in mm2

CUBE: tuple[Voxel, ...] = tuple((x, y, z) for x, y, z in itertools.product((0, 1), repeat=3))
STEPS_26 = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
STEPS_18 = [step for step in STEPS_26 if 0 in step]


def voxels_of(mask: Mask) -> set[Voxel]:
    return {(int(x), int(y), int(z)) for x, y, z in np.argwhere(mask)}


def dice(predicted: set[Voxel], truth: set[Voxel]) -> float:
    return 2 * len(predicted & truth) / (len(predicted) + len(truth)) if predicted or truth else 1.0


def elements(mask: set[Voxel], spacing: Point) -> list[Element]:
    """Every cube of eight voxels that the surface goes through, with the area of the triangles in it."""
    cubes = {tuple(c - k for c, k in zip(voxel, corner, strict=True)) for voxel in mask for corner in CUBE}
    found: list[Element] = []
    for x, y, z in cubes:
        inside = frozenset(c for c in CUBE if (x + c[0], y + c[1], z + c[2]) in mask)
        if len(inside) < 8:
            found.append(((x * spacing[0], y * spacing[1], z * spacing[2]), area_between(inside, spacing)))
    return found


def area_between(inside: frozenset[Voxel], spacing: Point) -> float:
    """Area of the surface between the corners of one cube, triangle by triangle."""
    if len(inside) > 4:
        inside = frozenset(CUBE) - inside
    total = 0.0
    for part in _parts(set(inside), [step for step in STEPS_26 if step.count(0) == 2]):
        ring, kinks = _ring(frozenset(part))
        corners = [tuple(c * s for c, s in zip(point, spacing, strict=True)) for point in ring]
        for a, b, c in _triangles(len(ring), kinks):
            total += _triangle(corners[a], corners[b], corners[c])
    return total


def _ring(part: frozenset[Voxel]) -> tuple[list[Point], list[int]]:
    """The middles of the cut edges in order around the cap, and the places in it of those where an L is to be fanned from."""
    cut = [(p, q) for p in part for q in CUBE if q not in part and sum(abs(a - b) for a, b in zip(p, q, strict=True)) == 1]
    faces = {edge: {(axis, edge[0][axis]) for axis in range(3) if edge[0][axis] == edge[1][axis]} for edge in cut}
    order = [cut[0]]
    while len(order) < len(cut):
        order.append(next(e for e in cut if e not in order and faces[e] & faces[order[-1]]))
    flat = [axis for axis in range(3) if len({p[axis] for p in part}) == 1]  # the axis across the plane of an L
    ends = [p for p in part if sum(sum(abs(a - b) for a, b in zip(p, q, strict=True)) == 1 for q in part) == 1]
    kinks = [i for i, (p, q) in enumerate(order) if len(part) == 3 and p in ends and p[flat[0]] != q[flat[0]]]
    middles = [((p[0] + q[0]) / 2, (p[1] + q[1]) / 2, (p[2] + q[2]) / 2) for p, q in order]
    return middles, kinks


def _triangles(n: int, kinks: Sequence[int]) -> list[tuple[int, int, int]]:
    if n == 6:  # one in the middle and three ears
        return [(0, 2, 4), (0, 1, 2), (2, 3, 4), (4, 5, 0)]
    start = kinks[0] if kinks else 0
    return [(start, (start + i) % n, (start + i + 1) % n) for i in range(1, n - 1)]


def _triangle(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> float:
    p, q, r = math.dist(a, b), math.dist(b, c), math.dist(c, a)
    half = (p + q + r) / 2
    return math.sqrt(max(0.0, half * (half - p) * (half - q) * (half - r)))  # Heron


def distances(of: Iterable[Element], to: Sequence[Element]) -> list[tuple[float, float]]:
    """(distance, area) of each element, nearest first."""
    return sorted((min((math.dist(point, other) for other, _ in to), default=math.inf), area) for point, area in of)


def hd95(predicted: set[Voxel], truth: set[Voxel], spacing: Point) -> float:
    if not predicted or not truth:
        return 374.0 if predicted or truth else 0.0
    surfaces = elements(predicted, spacing), elements(truth, spacing)
    return max(_within_which_95_per_cent(distances(a, b)) for a, b in (surfaces, surfaces[::-1]))


def _within_which_95_per_cent(pairs: Sequence[tuple[float, float]]) -> float:
    total, seen = math.fsum(area for _, area in pairs), 0.0
    for distance, area in pairs:
        seen += area
        if seen >= 0.95 * total - 1e-9:
            return distance
    return pairs[-1][0]


def nsd(predicted: set[Voxel], truth: set[Voxel], spacing: Point, tolerance: float) -> float:
    surfaces = elements(predicted, spacing), elements(truth, spacing)
    pairs = distances(surfaces[0], surfaces[1]) + distances(surfaces[1], surfaces[0])
    total = math.fsum(area for _, area in pairs)
    return math.fsum(area for distance, area in pairs if distance <= tolerance + 1e-4) / total if pairs else 1.0


def lesions(predicted: set[Voxel], truth: set[Voxel], spacing: Point, shape: Voxel) -> tuple[float, float, int, int, int]:
    """Dice, HD95, lesions found, lesions missed, false positives."""
    claims = [part & truth for part in _parts(_dilated(truth, shape), STEPS_26)]
    components = _parts(predicted, STEPS_26)
    unclaimed = set(range(len(components)))
    scores: list[tuple[float, float]] = []
    found = 0
    for lesion in claims:
        reach = _dilated(lesion, shape)
        matched = [i for i, component in enumerate(components) if component & reach]
        unclaimed -= set(matched)
        if len(lesion) * math.prod(spacing) > 50 + 1e-3:
            together = set().union(*(components[i] for i in matched))
            scores.append((dice(together, lesion), hd95(together, lesion, spacing)))
            found += bool(matched)
    n = len(scores) + len(unclaimed)
    if n == 0:
        return 1.0, 0.0, 0, 0, 0
    mm = (math.fsum(score[1] for score in scores) + 374 * len(unclaimed)) / n
    return math.fsum(score[0] for score in scores) / n, mm, found, len(scores) - found, len(unclaimed)


def _dilated(voxels: set[Voxel], shape: Voxel) -> set[Voxel]:
    for _ in range(3):
        voxels = voxels | {_moved(voxel, step) for voxel in voxels for step in STEPS_18}
        voxels = {v for v in voxels if all(0 <= c < side for c, side in zip(v, shape, strict=True))}
    return voxels


def _parts(voxels: set[Voxel], steps: Sequence[Sequence[int]]) -> list[set[Voxel]]:
    """The connected parts of a set of voxels."""
    left, parts = set(voxels), []
    while left:
        edge = [left.pop()]
        part = set(edge)
        while edge:
            voxel = edge.pop()
            beside = {_moved(voxel, step) for step in steps} & left
            left -= beside
            part |= beside
            edge += beside
        parts.append(part)
    return parts


def _moved(voxel: Voxel, step: Sequence[int]) -> Voxel:
    return (voxel[0] + step[0], voxel[1] + step[1], voxel[2] + step[2])
