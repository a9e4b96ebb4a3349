"""The inside of a made-up head: a folded, two-sided brain with ventricles, and a glioma of nested tissues.

Lengths are in millimetres of an adult brain, whatever the grid: every structure shrinks with the shape asked for. Axes
run as in BraTS files: x to the left, y to the back, z up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainunet.labels import Label

Floats: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]
Shape: TypeAlias = tuple[int, int, int]

# Half the box that any brain made here fits in, tilt and bumps included.
HALF_BOX_MM: Final = (71.0, 87.0, 72.0)
MARGIN_VOXELS: Final = 2
NO_ET_SHARE: Final = 0.25
TWO_LESIONS_SHARE: Final = 0.2


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Arrays (X, Y, Z). ``csf + grey + white`` is 1 in every voxel; outside ``brain`` they mean nothing.

    Attributes:
        caps: 0-1, white matter that is bright on FLAIR and yet healthy (caps of the ventricles, spots of old age).
        vessels: 0-1, what takes up contrast agent and is no tumour (sinus in the fissure, plexus in the ventricles).
        voxel_mm: a voxel's side in millimetres of an adult brain.
    """

    brain: Mask
    csf: Floats
    grey: Floats
    white: Floats
    caps: Floats
    vessels: Floats
    label: npt.NDArray[np.uint8]
    voxel_mm: float


def smooth_noise(rng: np.random.Generator, shape: Shape, period: float) -> Floats:
    """A field of mean 0 and deviation 1: cubic B-splines of white noise with knots ``period`` voxels apart."""
    bases = [_spline_basis(side, max(1, round(side / max(period, 1.0)))) for side in shape]
    field = rng.standard_normal([basis.shape[1] for basis in bases], np.float32)
    for basis in bases:
        field = np.tensordot(field, basis, axes=(0, 1))  # each pass moves the next axis to the front
    # 151/315: the mean over the axis of the sum of the squared weights, so the spline has lost this much variance
    return np.asarray(field / (151 / 315) ** 1.5, np.float32)


def make_anatomy(rng: np.random.Generator, shape: Shape) -> Anatomy:
    """Draw a brain and its tumour on a grid of this shape; the brain keeps a few voxels away from every face."""
    voxel_mm = max(2 * half / (side - 2 * MARGIN_VOXELS) for half, side in zip(HALF_BOX_MM, shape, strict=True))
    x, y, z = _coordinates(rng, shape, voxel_mm)

    def noise(period_mm: float) -> Floats:
        return smooth_noise(rng, shape, period_mm / voxel_mm)

    bumps = np.clip(1.6 * noise(45) + 0.8 * noise(18), -4, 4)
    width, length, height = rng.uniform(0.95, 1.0, 3)
    radius = np.sqrt(
        (x / (66 * width) * (1 + 0.0014 * (-y - 10))) ** 2 + (y / (81 * length)) ** 2 + ((z - 5) / (61 * height)) ** 2
    )
    temporal = np.exp(-(((np.abs(x) - 38) / 20) ** 2) - ((y + 10) / 34) ** 2)
    floor = z + 24 + 28 * temporal - 0.16 * y
    fissure_x = x + 1.5 * noise(40)
    cerebrum = np.minimum((1 - radius) * 64, floor) + bumps - 6 * np.exp(-((fissure_x / 4) ** 2)) * (radius > 0.8)
    cerebellum = (1 - np.sqrt((x / 47) ** 2 + ((y - 42) / 32) ** 2 + ((z + 38) / 28) ** 2)) * 30 + 0.5 * bumps
    stem = np.minimum(13 - np.hypot(x, y - 10 + 0.15 * z), np.minimum(z + 62, -10 - z))
    brain = np.maximum(np.maximum(cerebrum, cerebellum), stem) > 0

    # Depth under the nearest sheet of fluid: outer surface, fissure, the tent over the cerebellum, and the sulci.
    callosum = np.sqrt((y / 44) ** 2 + ((z - 4) / 24) ** 2)
    fissure = np.hypot(fissure_x, np.maximum(0, (1.05 - callosum) * 25))
    upper = np.minimum(np.minimum(cerebrum, fissure), np.where(y > 0, -cerebellum, 99))
    sulci = np.full(shape, 99, np.float32)
    sulci[brain] = _sulcal_distance(rng, np.stack([x[brain], y[brain], z[brain]]), radius[brain])
    upper = np.minimum(upper, np.hypot(sulci, np.maximum(0, (0.72 - radius) * 60)))
    folia = 3.2 * np.abs(np.sin((z + 0.5 * np.abs(x) + 0.3 * y + 2 * bumps) * (np.pi / 8)))
    lower = np.minimum(cerebellum, np.hypot(folia, np.maximum(0, cerebellum - 14)))
    depth = np.maximum(np.maximum(upper, lower), stem)

    horns, lateral = _ventricles(rng, x, y, z)
    soft = max(1.2, voxel_mm)
    csf = np.maximum(_ramp(1.1 - depth, soft), _ramp(horns, soft))
    nuclei = np.maximum(_ball(np.abs(x), y, z, (14, 8, 2), (8, 13, 9)), _ball(np.abs(x), y, z, (23, -10, 2), (8, 15, 11)))
    white = np.minimum(_ramp(depth - 4.3, 1.5 * soft), 1 - 0.75 * _ramp(nuclei, 3)) * (1 - csf)
    white = np.where(stem > np.maximum(upper, lower), 0.8 * (1 - csf), white)
    grey = 1 - csf - white

    spots = _ramp(noise(9) - rng.uniform(2.2, 3.2), 0.5) * (radius < 0.7)
    cap = (
        np.exp(-((np.maximum(0, -lateral) / rng.uniform(3, 7)) ** 2))
        * (0.25 + 0.75 * (np.abs(y + 2) > 26))
        * rng.uniform(0.3, 1)
    )
    caps = np.maximum(cap, spots) * white
    sinus = np.exp(-((fissure_x / 2.5) ** 2)) * _ramp(6 - cerebrum, 4) * (radius > 0.85)
    vessels = np.maximum(sinus, _ramp(horns - 1.5, 1) * (y > 5) * (noise(6) > 0.5))

    allowed = ndimage.binary_erosion(brain)
    wanted = (upper > 5) & (white > 0.5) & (z > -18) & allowed
    label = _grow_tumour(
        rng,
        (x, y, z),
        wanted if wanted.any() else allowed,
        allowed,
        white,
        np.maximum(csf, _ramp(horns, soft)),
        voxel_mm,
    )
    csf, grey, white, caps, vessels = (np.asarray(part, np.float32) for part in (csf, grey, white, caps, vessels))
    return Anatomy(brain, csf, grey, white, caps, vessels, label, voxel_mm)


def _coordinates(rng: np.random.Generator, shape: Shape, voxel_mm: float) -> tuple[Floats, Floats, Floats]:
    """Millimetres from the middle of a slightly tilted head."""
    axes = [((np.arange(side) - (side - 1) / 2) * voxel_mm).astype(np.float32) for side in shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    tilt = _rotation(rng.normal(0, 0.035, 3).clip(-0.07, 0.07)).astype(np.float32)
    x, y, z = np.tensordot(tilt, grid, axes=(1, 0))
    return x, y, z


def _rotation(angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    turns = []
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        turns.append(turn)
    return reduce(np.matmul, turns)


def _sulcal_distance(rng: np.random.Generator, points: Floats, radius: Floats) -> Floats:
    """About how far, in mm, each point (3, N) lies from the nearest sulcus, a wavy sheet that runs inwards.

    Sulci are the zeros of a noise field. Sampling it where the line from the middle meets the surface makes the sheets
    radial; the part that is not projected keeps them from being straight.
    """
    knot_mm = rng.uniform(9.5, 11)
    knots = rng.standard_normal((32, 32, 32), np.float32)
    projected = points * (0.25 + 0.75 / np.maximum(radius, 0.35))
    field = ndimage.map_coordinates(knots, projected / knot_mm + 16, order=3, prefilter=False, mode="mirror")
    return np.asarray(np.abs(field) * (1.9 * knot_mm), np.float32)


def _ventricles(rng: np.random.Generator, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Millimetres inside all ventricles, and inside the lateral pair alone (negative outside)."""
    size = rng.uniform(0.75, 1.5)
    arch = 10 - 0.008 * (y - 4) ** 2
    away = 6 + 0.007 * (y + 8) ** 2
    wide, high = 4.2 * size, 7.0 * size
    ends = np.maximum(0, np.abs(y - 3) - 24) / 11
    lateral = (1 - np.sqrt(((np.abs(x) - away) / wide) ** 2 + ((z - arch) / high) ** 2 + ends**2)) * wide
    third = (1 - np.sqrt((x / (2.4 * size)) ** 2 + ((y - 2) / 13) ** 2 + ((z + 4) / 8) ** 2)) * 2.4
    fourth = (1 - np.sqrt((x / 6) ** 2 + ((y - 24) / 5) ** 2 + ((z + 38) / 9) ** 2)) * 5
    return np.maximum(np.maximum(lateral, third), fourth), lateral


def _grow_tumour(
    rng: np.random.Generator,
    xyz: tuple[Floats, Floats, Floats],
    seeds: Mask,
    allowed: Mask,
    white: Floats,
    fluid: Floats,
    voxel_mm: float,
) -> npt.NDArray[np.uint8]:
    """Label map of NETC inside ET inside SNFH, each wrapped by at least one voxel of the next."""
    shape = allowed.shape
    volume = int(allowed.sum() * np.exp(rng.uniform(np.log(0.012), np.log(0.085))))
    size_mm = (3 * volume / (4 * np.pi)) ** (1 / 3) * voxel_mm
    lesions = 1 + int(rng.random() < TWO_LESIONS_SHARE)
    distance = np.full(shape, np.inf, np.float32)
    for centre, reach in zip(rng.choice(np.flatnonzero(seeds), lesions), (1.0, rng.uniform(1.3, 1.9)), strict=False):
        stretch = _rotation(rng.uniform(0, np.pi, 3)) * rng.uniform(0.75, 1.3, 3)
        offsets = np.stack([axis - axis.flat[centre] for axis in xyz])
        away = np.tensordot(stretch.T.astype(np.float32), offsets, axes=(1, 0))
        distance = np.minimum(distance, reach * np.sqrt((away**2).sum(axis=0)))

    def noise(period_mm: float) -> Floats:
        return smooth_noise(rng, (shape[0], shape[1], shape[2]), period_mm / voxel_mm)

    blocked = np.where(allowed, 0, np.float32(1e6)) + 2 * size_mm * fluid
    fingers = ndimage.gaussian_filter(white, 0.7) * (0.5 + 0.55 * noise(0.7 * size_mm + 4) + 0.3 * noise(7))
    spread = distance * (1 + 0.12 * noise(size_mm)) - 0.8 * size_mm * fingers + blocked
    swelling = _inside(spread, volume) & (distance < 3 * size_mm)
    core_level = distance * (1 + 0.16 * noise(0.8 * size_mm) + 0.07 * noise(6)) + np.where(
        allowed, ndimage.gaussian_filter(size_mm * fluid, 1.5), np.float32(1e6)
    )
    core_volume = max(8, int(volume * rng.uniform(0.15, 0.5)))
    core = _largest(_inside(core_level, core_volume), keep=0.1) & allowed & (distance < 3 * size_mm)
    whole = _largest(swelling & (fluid < 0.65) | core, keep=0.08)
    whole = _rounded(whole) & allowed | ndimage.binary_dilation(core)

    rim = np.clip(rng.uniform(0.15, 0.55) + 0.15 * noise(8), 0.05, 1)
    inner = ndimage.binary_erosion(core) & (core_level < np.quantile(core_level[core], 0.98) * (1 - rim))
    label = np.where(whole, Label.SNFH, Label.BACKGROUND).astype(np.uint8)
    if rng.random() < NO_ET_SHARE:
        label[core] = Label.NETC
    else:
        label[core] = Label.ET
        label[inner] = Label.NETC
    return label


def _inside(level: Floats, voxels: int) -> Mask:
    """The ``voxels`` lowest voxels of a level set."""
    return np.asarray(level <= np.partition(level, voxels, axis=None)[voxels])


def _largest(mask: Mask, keep: float) -> Mask:
    """Without the components smaller than ``keep`` of the whole: growth leaves crumbs that no expert would draw."""
    components, count = ndimage.label(mask)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    kept = sizes >= keep * mask.sum()
    kept[0] = False
    return np.asarray(kept[components])


def _rounded(mask: Mask) -> Mask:
    return np.asarray(ndimage.gaussian_filter(mask.astype(np.float32), 0.8) > 0.5)


def _ball(x: Floats, y: Floats, z: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
    """Millimetres inside an ellipsoid, roughly."""
    terms = (((axis - middle) / radius) ** 2 for axis, middle, radius in zip((x, y, z), centre, radii, strict=True))
    return np.asarray((1 - np.sqrt(sum(terms))) * min(radii), np.float32)


def _ramp(level: Floats, width: float) -> Floats:
    """0 below -width/2, 1 above width/2: what a voxel on the border of two tissues holds of the inner one."""
    return np.asarray(np.clip(level / width + 0.5, 0, 1), np.float32)


@lru_cache(maxsize=64)
def _spline_basis(side: int, spans: int) -> Floats:
    """Weights (side, spans + 3) of the uniform cubic B-splines at every voxel of an axis."""
    position = (np.arange(side) + 0.5) / side * spans
    nearest = np.floor(position).astype(int)
    t = position - nearest
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    basis = np.zeros((side, spans + 3), np.float32)
    np.put_along_axis(basis, nearest[:, None] + np.arange(4), weights.astype(np.float32), axis=1)
    return basis
