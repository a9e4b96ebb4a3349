"""Two signs of a head whose skull was not taken off, told from where an image is not 0: cheap enough to ask of every case."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from brainunet.errors import DataError

LARGEST_BRAIN_ML: Final = 2300.0
FULL_FACE: Final = 0.5
FULL_FACES: Final = 3


def require_stripped(path: Path, mask: npt.NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> None:
    """Whether what is not 0 in (X, Y, Z) can be a brain.

    Raises:
        DataError: the background is not 0, or it is more than any brain.
    """
    if sign := sign_of_a_head(mask, spacing_mm):
        raise not_stripped(path, sign)


def sign_of_a_head(mask: npt.NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> str | None:
    """What tells that (X, Y, Z) is not the mask of a brain on a background of 0; None if nothing does.

    1. At least three of the volume's six faces are half full. A brain touches the lower face with 2 % of it at most (ten real
       cases of BraTS 2021); noise, or a background of -1, fills all six. A slab of a few slices can fill two.
    2. It is over 2300 ml. A brain with its fluid has 1250 to 1730 ml in the ten real cases, and rarely 2000; a whole head has
       3500 and more.

    >>> brain = np.zeros((100, 100, 100), bool)
    >>> brain[20:-20, 20:-20, :-20] = True
    >>> sign_of_a_head(brain, (1, 1, 1)), sign_of_a_head(brain, (2, 2, 2))
    (None, '2304 ml are not 0, where a brain has at most about 2000')
    """
    faces = [np.moveaxis(mask, axis, 0)[at] for axis in range(3) for at in (0, -1)]
    full = sum(np.count_nonzero(face) >= FULL_FACE * face.size for face in faces)
    if full >= FULL_FACES:
        return f"the background is not 0 ({full} of the volume's 6 faces are full of intensities)"
    volume_ml = np.count_nonzero(mask) * float(np.prod(spacing_mm)) / 1000
    if volume_ml > LARGEST_BRAIN_ML:
        return f"{volume_ml:.0f} ml are not 0, where a brain has at most about 2000"
    return None


def not_stripped(where: str | Path, sign: str) -> DataError:
    """The refusal of a head, with what to do."""
    return DataError(
        where,
        found=f"not skull-stripped: {sign}",
        expected="a brain on a background of 0",
        remedy="take the skull off every modality with the same mask (HD-BET and SynthStrip do it) and set what is outside the "
        "brain to 0; if that was done, only the background is wrong: set it to 0",
    )
