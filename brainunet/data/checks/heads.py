"""Has the skull been taken off? What is not 0 must be a brain and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainunet.data.checks.facts import Array, Facts, Mask
from brainunet.data.checks.findings import Finding, refusal
from brainunet.data.skull import not_stripped

SHELLS: Final = 32  # from the surface to the deepest point: about 2 mm each in an adult
OUTER_SHELLS: Final = 14
DARK: Final = 0.5
LEAST_DEPTH: Final = 16
EVERY_SECOND: Final = (slice(None, None, 2),) * 3


def stripped(facts: Facts) -> Sequence[Finding]:
    """A head instead of a brain, in any modality; one sign of three is enough.

    The first two look at where an image is not 0 alone, and training refuses them too (``data/skull.py``, with their
    thresholds): a background that is not 0, and more than 2300 ml. The third is a dark shell between two bright ones, as bone
    lies between scalp and brain: from the surface inwards, in the upper half, the median intensity falls below half of what
    lies outside of it and rises to more than twice that again. In the 40 images of the ten real cases it never falls below 0.90
    of both, on our phantoms never below 0.74.

    Error: intensities are normalised over what is not 0, so skull and noise would shift every value the network sees.

    Limits: tried on ten stripped real brains and on phantoms with a made-up skull, and on no real head. A little skull or neck
    that was left on is not seen; a head cut to less than 2300 ml, on a background of 0, only by its dark shell.
    """
    signs: dict[str, list[str]] = {}
    for path, sign in facts.refused.skull:
        signs.setdefault(sign, []).append(path.name)
    told = {path for path, _ in facts.refused.skull}
    last: tuple[Mask, Shells | None] | None = None
    for modality, mask in facts.masks.items():
        path = facts.case.images[modality]
        if path in told:
            continue
        if last is None or not np.array_equal(last[0], mask):  # stripped with one mask, as a rule: one distance transform
            last = mask, shells_of(mask)
        if last[1] is not None and deepest_gap(shell_medians(facts.images[modality], last[1])) < DARK:
            signs.setdefault("a bright rim around a dark shell, as of scalp and bone", []).append(path.name)
    return [refusal(not_stripped(", ".join(names), sign)) for sign, names in signs.items()]


@dataclass(frozen=True, eq=False)
class Shells:
    """The upper half of a mask by depth, on every second voxel: enough for a median, and an eighth of the work.

    Attributes:
        chosen: (X/2, Y/2, Z/2), the voxels that are meant.
        numbers: (N,) of those, 0 at the surface and ``SHELLS`` - 1 at the deepest point.
    """

    chosen: Mask
    numbers: npt.NDArray[np.int64]


def shells_of(mask: Mask) -> Shells | None:
    """None where the mask is less than about 64 voxels wide: its shells would be less than a voxel."""
    hull = ndimage.binary_fill_holes(mask[EVERY_SECOND])
    if not hull.any():
        return None
    depth = ndimage.distance_transform_edt(np.pad(hull, 1))[1:-1, 1:-1, 1:-1]
    deepest = float(depth.max())
    if deepest < LEAST_DEPTH:
        return None
    depth[:, :, : round(float(ndimage.center_of_mass(hull)[2]))] = 0
    chosen = depth > 0
    return Shells(chosen, np.minimum((depth[chosen] - 0.5) * SHELLS / deepest, SHELLS - 1).astype(np.int64))


def shell_medians(image: Array, shells: Shells) -> npt.NDArray[np.float64]:
    """Median intensity of each of the outer shells, above the image's darkest 0.5 %; NaN where a shell has no voxel."""
    values = image[EVERY_SECOND][shells.chosen].astype(np.float64)
    by_shell = [values[shells.numbers == number] for number in range(OUTER_SHELLS)]
    return np.array([np.median(shell) if shell.size else np.nan for shell in by_shell]) - np.percentile(values, 0.5)


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
