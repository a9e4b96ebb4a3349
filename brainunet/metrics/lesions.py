"""Lesion-wise Dice and HD95 of the BraTS challenge: every lesion counts alike, however small, and so does every false alarm.

The rules are those of rachitsaluja/BraTS-2023-Metrics for BraTS-Africa:

1. The truth is dilated 3 times (18 neighbours); the voxels of the truth within one connected piece (26 neighbours) of that are
   one lesion. Pieces of a lesion that nearly touch are so counted once.
2. A component of the prediction (26 neighbours) belongs to every lesion that it touches once that lesion is dilated 3 times.
   All components of a lesion are compared with it together.
3. A lesion without a component is missed: Dice 0, HD95 374 mm. A component without a lesion is a false positive of any size,
   and costs the same.
4. Lesions of at most 50 mm3 are left out, and with them the components that touch no other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainunet.metrics.overlap import dice
from brainunet.metrics.pair import Mask, Spacing, require_one_shape
from brainunet.metrics.surface import MISSED_MM, hd95_mm, surface_distances

DILATIONS = 3
SMALLEST_MM3 = 50.0

_ROUNDING = 1e-5  # 50 voxels of 1.0000001 mm are 50 mm3
_NEIGHBOURS_18 = ndimage.generate_binary_structure(3, 2)
_NEIGHBOURS_26 = ndimage.generate_binary_structure(3, 3)

Numbers = npt.NDArray[np.int32]
Box = tuple[slice, ...]


@dataclass(frozen=True)
class LesionScores:
    """Scores over lesions and false positives. No lesion and no false positive: Dice 1.0, HD95 0.0.

    Attributes:
        dice: sum of the lesions' Dice / (lesions + false positives).
        hd95_mm: (sum of the lesions' HD95 + 374 for each false positive) / (lesions + false positives).
        found: lesions that a component touches.
        missed: lesions that none touches.
        false_positives: components that touch no lesion, not even a small one that was left out.
    """

    dice: float
    hd95_mm: float
    found: int
    missed: int
    false_positives: int


def lesion_scores(predicted: Mask, truth: Mask, spacing_mm: Spacing) -> LesionScores:
    """Scores of two masks (X, Y, Z), lesion by lesion. No prediction: every lesion is missed; no truth: all is false positive.

    >>> truth = np.zeros((24, 24, 24), bool)
    >>> truth[2:8, 2:8, 2:8] = True
    >>> stray = truth.copy()
    >>> stray[20, 20, 20] = True
    >>> lesion_scores(stray, truth, (1.0, 1.0, 1.0))
    LesionScores(dice=0.5, hd95_mm=187.0, found=1, missed=0, false_positives=1)

    Raises:
        ValueError: masks of two shapes.
    """
    require_one_shape(predicted, truth)
    lesions, components = _lesions(truth), _numbered(predicted)
    places = ndimage.find_objects(components)
    claimed = np.zeros(len(places) + 1, bool)  # by the number of a component; 0 is what lies outside all
    scores: list[tuple[float, float]] = []
    found = 0
    for number, place in enumerate(ndimage.find_objects(lesions), start=1):
        near = _widened(place, lesions.shape)
        lesion = lesions[near] == number
        dilated = ndimage.binary_dilation(lesion, _NEIGHBOURS_18, iterations=DILATIONS)
        touching = np.unique(components[near][dilated])
        touching = touching[touching > 0]
        claimed[touching] = True
        if np.count_nonzero(lesion) * math.prod(spacing_mm) <= SMALLEST_MM3 * (1 + _ROUNDING):
            continue
        found += touching.size > 0
        if touching.size:
            box = _hull([place, *(places[component - 1] for component in touching)])
            scores.append(_score(_is_one_of(touching, components[box], claimed.size), lesions[box] == number, spacing_mm))
        else:
            scores.append((0.0, MISSED_MM))
    false_positives = int(np.count_nonzero(~claimed[1:]))
    total = len(scores) + false_positives
    if total == 0:
        return LesionScores(1.0, 0.0, 0, 0, 0)
    return LesionScores(
        dice=math.fsum(score for score, _ in scores) / total,
        hd95_mm=(math.fsum(mm for _, mm in scores) + MISSED_MM * false_positives) / total,
        found=found,
        missed=len(scores) - found,
        false_positives=false_positives,
    )


def _lesions(truth: Mask) -> Numbers:
    """The number of its lesion at each voxel of the truth, 0 elsewhere."""
    dilated = ndimage.binary_dilation(truth, _NEIGHBOURS_18, iterations=DILATIONS)
    return np.where(truth, _numbered(dilated), 0)


def _numbered(mask: Mask) -> Numbers:
    return np.asarray(ndimage.label(mask, _NEIGHBOURS_26)[0], np.int32)


def _score(components: Mask, lesion: Mask, spacing_mm: Spacing) -> tuple[float, float]:
    return dice(components, lesion), hd95_mm(surface_distances(components, lesion, spacing_mm))


def _is_one_of(chosen: Numbers, numbers: Numbers, size: int) -> Mask:
    table = np.zeros(size, bool)
    table[chosen] = True
    return table[numbers]


def _widened(place: Box, shape: tuple[int, ...]) -> Box:
    """A lesion's box with room for its dilation, cut at the volume's edge."""
    sides = zip(place, shape, strict=True)
    return tuple(slice(max(0, side.start - DILATIONS), min(whole, side.stop + DILATIONS)) for side, whole in sides)


def _hull(places: list[Box]) -> Box:
    """The smallest box around boxes."""
    return tuple(slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*places, strict=True))
