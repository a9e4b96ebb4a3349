"""Where a segmentation has something, and which voxels hang together: within the smallest box that holds it all, and in memory
that a grid of 0.5 mm has room for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainunet.labels import Label
from brainunet.prediction.slabs import slabs

TOUCHING = np.ones((3, 3, 3), bool)  # by a corner is enough to be one part

Mask = npt.NDArray[np.bool_]


def mask_of(labels: npt.NDArray[np.uint8], members: Iterable[Label]) -> Mask:
    """Where label numbers (X, Y, Z) are one of ``members``; nowhere for none.

    >>> mask_of(np.array([0, 1, 2, 3], np.uint8), (Label.NETC, Label.ET)).tolist()
    [False, True, False, True]
    """
    found = np.zeros(labels.shape, bool)
    for label in members:  # np.isin would make eight bytes of each voxel
        found |= labels == label
    return found


def box_around(array: npt.NDArray[np.generic]) -> tuple[slice, ...]:
    """The smallest box that holds all of (X, Y, Z) that is not 0; an empty one where all of it is.

    >>> box_around(np.array([[[0, 0, 3, 0, 1, 0]]]))
    (slice(0, 1, None), slice(0, 1, None), slice(2, 5, None))
    """
    box = [slice(0, n) for n in array.shape]
    for axis in range(array.ndim):
        others = tuple(other for other in range(array.ndim) if other != axis)
        hit = np.flatnonzero(array[tuple(box)].any(axis=others))
        box[axis] = slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 0)
    return tuple(box)


def parts_of(mask: Mask) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The number of the part that each voxel of (X, Y, Z) is in, 0 for none, and the voxels of each part, 0 for that of none.

    >>> numbers, sizes = parts_of(np.array([[[True, True, False, True]]]))
    >>> numbers.tolist(), sizes.tolist()
    ([[[1, 1, 0, 2]]], [0, 2, 1])
    """
    numbers = np.zeros(mask.shape, np.int32)
    n = int(ndimage.label(mask, TOUCHING, output=numbers))
    sizes = np.zeros(n + 1, np.int64)
    for slab in slabs(numbers.shape):  # bincount makes eight bytes of each number
        sizes += np.bincount(numbers[slab].ravel(), minlength=n + 1)
    sizes[0] = 0
    return numbers, sizes


def part_sizes(mask: Mask) -> npt.NDArray[np.int64]:
    """Voxels of each connected part of (X, Y, Z); none where there is no True.

    >>> part_sizes(np.array([[[True, True, False, True]]])).tolist()
    [2, 1]
    """
    return parts_of(mask[box_around(mask)])[1][1:]
