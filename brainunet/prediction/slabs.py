"""A volume in slabs: a step over all of it then costs the memory of a slab, and a slab stays in the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

SLAB_VOXELS: Final = 2**20


def slabs(shape: Sequence[int], axis: int = 0, most: int = SLAB_VOXELS) -> Iterator[tuple[slice, ...]]:
    """Where the slabs of an array lie, one after the other along ``axis``: of at most so many voxels, or one plane each.

    >>> [(slab[0].start, slab[0].stop) for slab in slabs((5, 10), most=20)]
    [(0, 2), (2, 4), (4, 5)]
    """
    n = shape[axis]
    step = max(1, most * n // max(1, math.prod(shape)))
    for start in range(0, n, step):
        yield tuple(slice(start, min(start + step, n)) if at == axis else slice(None) for at in range(len(shape)))
