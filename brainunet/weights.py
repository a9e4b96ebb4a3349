"""Network weights as plain numpy: what travels, what is averaged, what is signed. No torch here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from brainunet.errors import FederationError

FloatArray: TypeAlias = npt.NDArray[np.float32]
Layout: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, eq=False)
class Weights:
    """Named float32 arrays in a fixed order; also a difference of two such (a delta).

    Integer counters of a network (batch norm's number of batches) are no weights: they count local steps and have no mean.

    >>> before = Weights.of({"w": np.array([1.0, 2.0]), "b": np.array(0.5)})
    >>> after = Weights.of({"w": np.array([1.0, 4.0]), "b": np.array(1.5)})
    >>> delta = after.minus(before)
    >>> delta["w"].tolist(), delta.norm
    ([0.0, 2.0], 2.23606797749979)
    >>> before.plus(delta).digest == after.digest
    True
    """

    names: tuple[str, ...]
    arrays: tuple[FloatArray, ...]

    @classmethod
    def of(cls, arrays: Mapping[str, npt.ArrayLike]) -> Weights:
        """Weights in the mapping's order; arrays that are float32 already are not copied."""
        return cls(tuple(arrays), tuple(np.asarray(array, dtype=np.float32) for array in arrays.values()))

    @classmethod
    def from_flat(cls, layout: Layout, flat: FloatArray) -> Weights:
        """The inverse of :meth:`flat`; the arrays are views of ``flat`` (N,).

        Raises:
            FederationError: the layout names an array twice, has an empty one, or does not add up to N values.
        """
        sizes = [math.prod(shape) for _, shape in layout]
        names = [name for name, _ in layout]
        # no side below 1, so none above N either: numpy can't be made to overflow
        if any(side < 1 for _, shape in layout for side in shape) or sum(sizes) != flat.size or flat.ndim != 1:
            raise FederationError("weights", found=f"values of shape {flat.shape}", expected="as many as their layout says")
        if len(set(names)) != len(names):
            raise FederationError("weights", found="a name that appears twice", expected="one array for each name")
        return cls(tuple(names), tuple(_parts_of(flat, layout)))

    @classmethod
    def gathered(cls, layout: Layout, arrays: Iterable[npt.ArrayLike]) -> Weights:
        """Weights of arrays that come one at a time, as parts of one flat array: :meth:`flat` costs nothing then."""
        flat = np.empty(sum(math.prod(shape) for _, shape in layout), np.float32)
        made = cls(tuple(name for name, _ in layout), tuple(_parts_of(flat, layout)))
        for part, array in zip(made.arrays, arrays, strict=True):
            part[...] = array
        return made

    @cached_property
    def layout(self) -> Layout:
        return tuple((name, array.shape) for name, array in zip(self.names, self.arrays, strict=True))

    @property
    def n_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, shapes and values, as hex."""
        sha = hashlib.sha256(json.dumps(self.layout).encode())  # quoted, so that no name can pass for a shape or for values
        for array in self.arrays:
            sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()

    def __getitem__(self, name: str) -> FloatArray:
        return self.arrays[self.names.index(name)]

    def as_dict(self) -> dict[str, FloatArray]:
        return dict(zip(self.names, self.arrays, strict=True))

    def flat(self) -> FloatArray:
        """All values in order as one (N,) array, not to be written to: a copy, or the array that these are the parts of."""
        if not self.arrays:
            return np.zeros(0, np.float32)
        whole = self.arrays[0].base
        if isinstance(whole, np.ndarray) and whole.ndim == 1 and self._are_parts_of(whole):
            return whole
        return np.concatenate([array.ravel() for array in self.arrays])

    def _are_parts_of(self, whole: npt.NDArray[Any]) -> bool:
        """Whether the arrays lie in ``whole`` one after the other, from its first value to its last."""
        place = whole.ctypes.data
        for array in self.arrays:
            if array.base is not whole or array.ctypes.data != place or not array.flags.c_contiguous:
                return False
            place += array.nbytes
        return whole.dtype == np.float32 and place == whole.ctypes.data + whole.nbytes

    def plus(self, other: Weights) -> Weights:
        self._require_layout_of(other)
        return Weights.gathered(self.layout, (a + b for a, b in zip(self.arrays, other.arrays, strict=True)))

    def minus(self, other: Weights) -> Weights:
        self._require_layout_of(other)
        return Weights.gathered(self.layout, (a - b for a, b in zip(self.arrays, other.arrays, strict=True)))

    @cached_property
    def norm(self) -> float:
        """Euclidean length of all values taken together; 0.0 of no arrays; NaN or infinite if any value is."""
        squares = sum(float(np.vdot(array, array)) for array in self.arrays)
        if not math.isfinite(squares):  # values above 1e19 overflow a float32 sum; float64 tells them from NaN and infinity
            squares = sum(float(np.vdot(array.astype(np.float64), array)) for array in self.arrays)
        return math.sqrt(squares)

    def is_finite(self) -> bool:
        return math.isfinite(self.norm)

    def _require_layout_of(self, other: Weights) -> None:
        if self.layout != other.layout:
            raise FederationError("weights", found="arrays of another layout", expected="the same names and shapes")


def _parts_of(flat: FloatArray, layout: Layout) -> Iterator[FloatArray]:
    """The arrays of a layout as views of ``flat`` (N,), which has as many values as they."""
    end = 0
    for _, shape in layout:
        start, end = end, end + math.prod(shape)
        yield flat[start:end].reshape(shape)


class WeightedMean:
    """A weighted mean that takes one set of weights at a time and holds only their running sum, in float64.

    >>> mean = WeightedMean()
    >>> mean.fold(Weights.of({"w": [1.0]}), weight=1)
    >>> mean.fold(Weights.of({"w": [4.0]}), weight=2)
    >>> mean.result()["w"].tolist()
    [3.0]
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._layout: Layout | None = None
        self._sums: list[npt.NDArray[np.float64]] = []

    def fold(self, weights: Weights, *, weight: float) -> None:
        """Add one; ``weight`` > 0 is its share before normalising.

        Raises:
            FederationError: another layout than the first one's, or a weight that is not positive.
        """
        if not (weight > 0 and math.isfinite(weight)):
            raise FederationError("mean of weights", found=f"a share of {weight}", expected="a positive number")
        if self._layout is None:
            self._layout = weights.layout
            self._sums = [np.zeros(shape, np.float64) for _, shape in weights.layout]
        if weights.layout != self._layout:
            raise FederationError("mean of weights", found="arrays of another layout", expected="the first one's")
        for total, array in zip(self._sums, weights.arrays, strict=True):
            total += np.multiply(array, weight, dtype=np.float64)
        self.total += weight

    def result(self) -> Weights:
        """The mean so far.

        Raises:
            FederationError: nothing was folded in.
        """
        if self._layout is None:
            raise FederationError("mean of weights", found="nothing to average", expected="at least one reply")
        return Weights.gathered(self._layout, (total / self.total for total in self._sums))
