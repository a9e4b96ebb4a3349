"""What a metric is given, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Mask: TypeAlias = npt.NDArray[np.bool_]
Spacing: TypeAlias = tuple[float, float, float]
T = TypeVar("T")


@dataclass(frozen=True)
class Missing:
    """There is no value, and why."""

    reason: str


@dataclass(frozen=True, eq=False)
class Pair:
    """A prediction and the truth of one structure, cut to the smallest box that holds both (see :func:`pair_of`).

    Attributes:
        predicted: mask (X, Y, Z).
        truth: mask (X, Y, Z).
        spacing_mm: sides of a voxel.
        grid_voxels: how many voxels there were before the cut; all that were cut off are outside both masks.
    """

    predicted: Mask
    truth: Mask
    spacing_mm: Spacing
    grid_voxels: int
    _done: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)

    def once(self, work: Callable[[Mask, Mask, Spacing], T]) -> T:
        """``work(predicted, truth, spacing_mm)``, done the first time only: what several metrics share is computed once."""
        if work not in self._done:
            self._done[work] = work(self.predicted, self.truth, self.spacing_mm)
        result: T = self._done[work]
        return result


@dataclass(frozen=True)
class Metric:
    """A line of METRICS.

    Attributes:
        of: pair -> value, or :class:`Missing`.
        unit: of the value; "" for a share of 0 to 1.
        best: the value of a perfect prediction; None where the figure describes and does not judge.
        symmetric: whether prediction and truth may change places.
    """

    of: Callable[[Pair], float | Missing]
    unit: str = ""
    best: float | None = None
    symmetric: bool = False


def pair_of(predicted: Mask, truth: Mask, spacing_mm: Spacing) -> Pair:
    """Two masks (X, Y, Z), cut to their common box; both empty: to one voxel.

    Raises:
        ValueError: masks of two shapes.
    """
    require_one_shape(predicted, truth)
    box = common_box(predicted, truth)
    return Pair(predicted[box], truth[box], spacing_mm, predicted.size)


def require_one_shape(predicted: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction {predicted.shape} and truth {truth.shape} have two shapes")


def common_box(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[slice, slice, slice]:
    """The smallest box that holds whatever is not 0 in either of two arrays (X, Y, Z); nothing there: one voxel."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(a.any(axis=others) | b.any(axis=others))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 1))
    return (box[0], box[1], box[2])
