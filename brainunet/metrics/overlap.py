"""Metrics that count voxels: Dice (Dice, Ecology 1945) with the challenge's rule for empty masks, and its relatives."""

from __future__ import annotations

import math

import numpy as np

from brainunet.metrics.pair import Mask, Missing, Pair, Spacing, require_one_shape


def dice(predicted: Mask, truth: Mask) -> float:
    """2 |P and T| / (|P| + |T|) of two masks (X, Y, Z). Both empty: 1.0 (nothing to find, nothing claimed); one empty: 0.0.

    >>> tumour, nothing = np.array([[[True, True]]]), np.array([[[False, False]]])
    >>> dice(tumour, np.array([[[True, False]]])), dice(nothing, nothing), dice(tumour, nothing)
    (0.6666666666666666, 1.0, 0.0)

    Raises:
        ValueError: masks of two shapes.
    """
    require_one_shape(predicted, truth)
    total = _count(predicted) + _count(truth)
    return 1.0 if total == 0 else 2 * _count(predicted & truth) / total


def sensitivity(pair: Pair) -> float | Missing:
    """|P and T| / |T|: the share of the truth that was found. No truth: no value; no prediction: 0.0."""
    truth = _count(pair.truth)
    return _count(pair.predicted & pair.truth) / truth if truth else Missing("the truth is empty: there was nothing to find")


def specificity(pair: Pair) -> float | Missing:
    """The share of what lies outside the truth that the prediction left alone; no prediction: 1.0.

    It counts the whole grid, air included, so it is nearly 1 for any tumour and depends on how the volume was cut. A truth
    that fills the grid: no value.
    """
    outside = pair.grid_voxels - _count(pair.truth)
    if outside == 0:
        return Missing("the truth fills the whole volume: there was nothing to leave alone")
    return (outside - _count(pair.predicted & ~pair.truth)) / outside


def volume_ml(mask: Mask, spacing_mm: Spacing) -> float:
    """Volume of a mask in millilitres; empty: 0.0.

    >>> volume_ml(np.ones((10, 10, 10), bool), (1.0, 1.0, 2.0))
    2.0
    """
    return _count(mask) * math.prod(spacing_mm) / 1000


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))
