"""Masks for the tests of metrics: boxes in a small volume, and what hypothesis draws from them."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]

SHAPE: Final = (27, 7, 6)  # long enough for lesions that do not touch once dilated
MM: Final[Spacing] = (1.0, 1.0, 1.0)


def box(at: tuple[int, int, int], size: int | tuple[int, int, int], shape: tuple[int, int, int] = (48, 48, 48)) -> Mask:
    """True in a box with its lowest corner ``at``."""
    mask = np.zeros(shape, bool)
    sides = (size, size, size) if isinstance(size, int) else size
    mask[tuple(slice(low, low + side) for low, side in zip(at, sides, strict=True))] = True
    return mask


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Up to four small boxes with a few voxels taken out or put in, in a volume of SHAPE; often touching its edge."""
    mask = np.zeros(SHAPE, bool)
    for _ in range(draw(st.integers(0, 4))):
        x, y, z = (draw(st.integers(0, side - 1)) for side in SHAPE)
        mask |= box((x, y, z), draw(st.tuples(*[st.integers(1, 4)] * 3)), SHAPE)
    for _ in range(draw(st.integers(0, 4))):
        mask[tuple(draw(st.integers(0, side - 1)) for side in SHAPE)] ^= True
    return mask


spacings = st.tuples(*[st.sampled_from([0.5, 1.0, 1.25, 3.0, 5.5])] * 3)
