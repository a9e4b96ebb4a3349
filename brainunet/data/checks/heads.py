"""Has the skull been taken off? What is not 0 must be a brain and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainunet.data.checks.facts import Array, Facts, Mask
from brainunet.data.checks.findings import Finding, error
from brainunet.data.preprocess import Box

LARGEST_BRAIN_ML: Final = 2300.0
FULL_FACE: Final = 0.5
FULL_FACES: Final = 3
SHELLS: Final = 32  # from the surface to the deepest point: about 2 mm each in an adult
OUTER_SHELLS: Final = 14
DARK: Final = 0.5
LEAST_DEPTH: Final = 16

REMEDY: Final = (
    "take the skull off every modality with the same mask (HD-BET or SynthStrip do it) and set what is outside the brain to 0; "
    "if that was done, only the background is wrong: set it to 0"
)


def stripped(facts: Facts) -> Sequence[Finding]:
    """A head instead of a brain, in any modality; one sign is enough.

    1. The background is not 0: at least three of the volume's six faces are half full of intensities. A brain touches the
       lower face with 2 % of it at most (ten real cases); noise, or a background of -1, fills all six. A slab of a few slices
       can fill two.
    2. What is not 0 is over 2300 ml. A brain with its fluid has 1250 to 1730 ml in the ten real cases, and rarely 2000; a whole
       head has 3500 and more.
    3. A dark shell between two bright ones, as bone lies between scalp and brain: from the surface inwards, in the upper half,
       the median intensity falls below half of what lies outside of it and rises to more than twice that again. In the 40
       images of the ten real cases it never falls below 0.90 of both, on our phantoms never below 0.76.

    Error: intensities are normalised over what is not 0, so skull and noise would shift every value the network sees.

    Limits: tried on ten stripped real brains and on phantoms with a made-up skull, and on no real head. A little skull or neck
    that was left on is not seen; a head cut to less than 2300 ml, on a background of 0, only by sign 3.
    """
    found = []
    for modality, mask in facts.masks.items():
        sign = sign_of_a_head(mask, facts.box, facts.shape, facts.spacing_mm)
        if sign is None and dark_shell(facts.images[modality], mask):
            sign = "a bright rim around a dark shell, as of scalp and bone"
        if sign is not None:
            found.append(error(f"{modality} is not skull-stripped: {sign}", REMEDY))
    return found


def sign_of_a_head(mask: Mask, box: Box, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> str | None:
    """The first two signs, from the mask of what is not 0 alone; None where there is neither.

    Args:
        mask: (X, Y, Z), cropped to ``box``.
        box: where it lies in a volume of this shape.
        shape: of that volume.
        spacing_mm: sides of a voxel.
    """
    full = 0
    for axis in range(3):
        area = np.prod([side for other, side in enumerate(shape) if other != axis])
        for at, touches in ((0, box[axis][0] <= 0), (-1, box[axis][1] >= shape[axis])):
            if touches:
                full += int(np.count_nonzero(np.moveaxis(mask, axis, 0)[at]) >= FULL_FACE * area)
    if full >= FULL_FACES:
        return f"the background is not 0 ({full} of the volume's 6 faces are full of intensities)"
    volume_ml = np.count_nonzero(mask) * float(np.prod(spacing_mm)) / 1000
    if volume_ml > LARGEST_BRAIN_ML:
        return f"{volume_ml:.0f} ml are not 0, where a brain has at most about 2000"
    return None


def dark_shell(image: Array, mask: Mask) -> bool:
    """Whether a dark shell lies between two bright ones (the third sign); False where the mask is too small to tell."""
    return bool(deepest_gap(shell_medians(image, mask)) < DARK)


def shell_medians(image: Array, mask: Mask) -> npt.NDArray[np.float64]:
    """Median intensity by depth under the surface, in the upper half; empty where the mask is less than about 64 voxels wide.

    Every second voxel is enough for a median, and an eighth of the work.
    """
    thin = (slice(None, None, 2),) * 3
    hull = ndimage.binary_fill_holes(mask[thin])
    if not hull.any():
        return np.empty(0)
    depth = ndimage.distance_transform_edt(np.pad(hull, 1))[1:-1, 1:-1, 1:-1]
    if depth.max() < LEAST_DEPTH:  # shells of less than a voxel
        return np.empty(0)
    depth[:, :, : round(float(ndimage.center_of_mass(hull)[2]))] = 0
    chosen = depth > 0
    shell = np.minimum((depth[chosen] - 0.5) * SHELLS / depth.max(), SHELLS - 1).astype(int)
    values = image[thin][chosen].astype(np.float64)
    lowest = np.percentile(values, 0.5)
    return np.array([np.median(values[shell == n]) - lowest if (shell == n).any() else np.nan for n in range(OUTER_SHELLS)])


def deepest_gap(medians: npt.NDArray[np.float64]) -> float:
    """How dark the darkest shell is, as a part of the lesser of the brightest outside and the brightest inside of it.

    >>> float(deepest_gap(np.array([4.0, 1.0, 3.0]))), float(deepest_gap(np.array([1.0, 2.0, 3.0])))
    (0.3333333333333333, 1.0)
    """
    known = medians[np.isfinite(medians)]
    gap = 1.0
    for at in range(1, len(known) - 1):
        bright = min(known[:at].max(), known[at + 1 :].max())
        if bright > max(known[at], 0):
            gap = min(gap, float(known[at] / bright))
    return gap
