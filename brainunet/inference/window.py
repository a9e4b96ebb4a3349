"""Overlapping windows whose logits are blended with Gaussian weights: what the network sees at a time stays small, and about as
large as what it was trained on (docs/adr/0009). Numbers only, for every engine alike."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
# (C, X, Y, Z) of normalised intensities -> logits (L, X, Y, Z)
Network: TypeAlias = Callable[[FloatArray], FloatArray]
Place: TypeAlias = tuple[slice, slice, slice, slice]

OVERLAP = 0.25
SIGMA = 0.125  # of the window's side, as in nnU-Net (Isensee et al., Nature Methods 2021)


def predict_in_windows(network: Network, image: FloatArray, window: Sequence[int]) -> FloatArray:
    """image (C, X, Y, Z) -> blended logits (L, X, Y, Z), one window (cut to the image's size) at a time."""
    size = image.shape[1:]
    sides = window_sides(size, window)
    weight = _gaussian(sides)
    total: FloatArray | None = None
    norm = np.zeros(size, np.float32)
    for place in places(size, sides):
        logits = network(image[place])
        if total is None:
            total = np.zeros((logits.shape[0], *size), np.float32)
        total[place] += logits * weight
        norm[place[1:]] += weight
    assert total is not None
    total /= norm
    return total


def window_sides(size: Sequence[int], window: Sequence[int]) -> tuple[int, ...]:
    """The window cut to an image's size.

    >>> window_sides((140, 80, 155), (96, 96, 96))
    (96, 80, 96)
    """
    return tuple(min(side, whole) for side, whole in zip(window, size, strict=True))


def places(size: Sequence[int], sides: Sequence[int]) -> Iterator[Place]:
    """Where the windows of an image lie, all its channels in each.

    >>> len(list(places((144, 176, 144), (96, 96, 96))))
    12
    """
    for corner in itertools.product(*(_starts(whole, side) for whole, side in zip(size, sides, strict=True))):
        x, y, z = (slice(start, start + side) for start, side in zip(corner, sides, strict=True))
        yield slice(None), x, y, z


def _starts(whole: int, side: int) -> list[int]:
    if whole <= side:
        return [0]
    steps = -(-(whole - side) // max(1, int(side * (1 - OVERLAP))))
    return [round(i * (whole - side) / steps) for i in range(steps + 1)]


def _gaussian(sides: Sequence[int]) -> FloatArray:
    axes = [np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (SIGMA * side)) ** 2) for side in sides]
    weight = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return np.asarray(np.maximum(weight, 1e-3 * weight.max()), np.float32)
