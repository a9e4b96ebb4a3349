"""Small components removed from a segmentation: each false one costs as much as a missed lesion (Dice 0 and 374 mm).

The regions lie in each other, so that they are cleared from the largest to the smallest, and what is removed becomes what lies
around it:

=======  ======================================================
WT       a small component becomes background
TC       a small component becomes SNFH: it stays whole tumour
ET       a small component becomes NETC: it stays tumour core
=======  ======================================================

How small is in ``components.toml`` beside this file, with what it was chosen on. The largest component of the whole tumour
stays, however small: it may be all there is, and :mod:`brainunet.prediction.review` asks for a look at it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from brainunet.labels import REGIONS, Label, Region
from brainunet.prediction.parts import box_around, mask_of, parts_of
from brainunet.prediction.slabs import slabs

BECOMES: Final[Mapping[Region, Label]] = MappingProxyType(
    {Region.WT: Label.BACKGROUND, Region.TC: Label.SNFH, Region.ET: Label.NETC}
)
"""In the order in which the regions are cleared."""

FILE: Final = Path(__file__).with_name("components.toml")

_ROUNDING: Final = 1e-5  # 50 voxels of 1.0000001 mm are 50 mm3


@dataclass(frozen=True)
class Removed:
    """What was removed of a region."""

    components: int
    voxels: int
    volume_mm3: float


@cache
def committed_thresholds() -> Mapping[Region, float]:
    """Region -> components up to so many mm3 are removed; those of ``components.toml``."""
    told = tomllib.loads(FILE.read_text(encoding="utf-8"))["smallest_mm3"]
    return MappingProxyType({region: float(told[region.value]) for region in BECOMES})


def without_small_components(
    labels: npt.NDArray[np.uint8], voxel_mm3: float, smallest_mm3: Mapping[Region, float]
) -> tuple[npt.NDArray[np.uint8], Mapping[Region, Removed]]:
    """Label numbers (X, Y, Z) without the small components of each region, and what was removed; no tumour stays none.

    Args:
        smallest_mm3: of each region, as in :func:`committed_thresholds`; 0 removes none.

    >>> labels = np.zeros((9, 9, 9), np.uint8)
    >>> labels[1:6, 1:6, 1:6] = Label.SNFH
    >>> labels[3, 3, 3], labels[8, 8, 8] = Label.ET, Label.ET
    >>> cleared, removed = without_small_components(labels, 1.0, {Region.WT: 2, Region.TC: 2, Region.ET: 2})
    >>> int(cleared[3, 3, 3]) == Label.ET, int(cleared[8, 8, 8]) == Label.BACKGROUND, removed[Region.WT].components
    (False, True, 1)
    """
    cleared = labels.copy()
    within = cleared[box_around(cleared)]
    removed = {}
    for region, becomes in BECOMES.items():
        numbers, sizes = parts_of(mask_of(within, REGIONS[region]))
        small = sizes * voxel_mm3 <= smallest_mm3[region] * (1 + _ROUNDING)
        small[0] = False  # what is no component
        if region is Region.WT and len(sizes) > 1:
            small[sizes.argmax()] = False
        if small.any():
            for slab in slabs(numbers.shape):  # as indices, numbers become eight bytes each
                within[slab][small[numbers[slab]]] = becomes
        n = int(sizes[small].sum())
        removed[region] = Removed(int(small.sum()), n, round(n * voxel_mm3, 3))
    return cleared, MappingProxyType(removed)
