"""Checks of what the images show: all of the brain, the same brain, and sharply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from brainunet.data.checks.facts import AXES, Facts, Mask
from brainunet.data.checks.findings import Finding, note, warning

LEAST_DICE: Final = 0.95
FARTHEST_MM: Final = 5.0
MOST_MISSING: Final = 0.02
MOST_ON_A_FACE_MM2: Final = 100.0
MOST_ON_THE_FLOOR_MM2: Final = 800.0
COARSE: Final = 0.32
FACES: Final = (("left", "right"), ("back", "front"), ("bottom", "top"))


def registered(facts: Facts) -> Sequence[Finding]:
    """Modalities whose brains do not lie on each other: Dice and distance of centres, of a modality and most of the others.

    Warning below Dice 0.95 or above 5 mm: the ten real cases have 0.999 and 0.1 mm, and 5 mm are half the diameter of a small
    core. A network takes the modalities of a voxel to be of one place.

    Limits: after stripping all with one mask (as BraTS does) the masks are equal whatever is inside them.
    """
    found = []
    for modality, mask in facts.masks.items():
        rest = facts.others[modality]
        if facts.refused.skull or not mask.any() or not rest.any():
            continue
        dice = 2 * np.count_nonzero(mask & rest) / (np.count_nonzero(mask) + np.count_nonzero(rest))
        apart_mm = float(np.linalg.norm((_centre(mask) - _centre(rest)) * facts.spacing_mm))
        if dice < LEAST_DICE or apart_mm > FARTHEST_MM:
            said = f"{modality}: its brain overlaps the others' by Dice {dice:.2f}, centres {apart_mm:.0f} mm apart"
            found.append(warning(said, "register the modalities of the case to each other before stripping"))
    return found


def complete(facts: Facts) -> Sequence[Finding]:
    """Brain cut off: modalities that are 0 or constant where others show brain, and brains that run into the volume's faces.

    A modality may lack 2 % of the brain: in the ten real cases it is 0.2 % at most, but for one t1n that is cut off at both
    sides and filled with a constant there (6 %). On a face may lie 100 mm2 of brain, on the lower one 800: the brain stem
    leaves the volume there, with up to 510 mm2 in nine of the cases, and 1098 in the one whose cerebellum is cut.

    Warning: a tumour may go on where the image does not.
    """
    found = []
    for modality, mask in facts.masks.items():
        expected = max(int(np.count_nonzero(facts.others[modality])), 1)
        # by volume: an image that is whole and elsewhere is not registered, which is another check
        missing = 1 - (int(np.count_nonzero(mask)) - int(np.count_nonzero(facts.flat[modality]))) / expected
        if missing > MOST_MISSING and mask.any() and not facts.refused.skull:
            said = f"{modality}: cut off, 0 or constant in {missing:.0%} of the brain"
            found.append(warning(said, "look at the case; leave it out if the tumour is near, or choose modalities without it"))
    if facts.images and not facts.refused.skull and (cut := _on_faces(facts)):
        said = "the brain runs into the volume's " + ", ".join(f"{name} ({mm2:.0f} mm2)" for name, mm2 in cut.items())
        found.append(warning(said, "look at whether the tumour is cut off with it; if it can be, export the whole head"))
    return found


def sharp(facts: Facts) -> Sequence[Finding]:
    """Blur: an image as smooth as a slope, in a direction in which a slice should be sharp.

    Coarse is a mean step over one voxel of less than 0.32 of that over four (``Facts.coarseness``; a straight slope has 0.25).
    Within slices 39 of the 40 real images have 0.35 to 0.58, and the blurred t1n that this check was made for has 0.27
    left-right. Fourteen of them, blurred by a Gaussian of 1 mm, fell to 0.26 - 0.31. Bottom-top most have 0.27 - 0.31, because
    slices are thick: that is told by the check of slices.

    Warning where an image is coarse within its slices while another of the case is not, and where it is coarse on all three
    axes.

    Limits: noise is fine-grained, so a blurred image with much noise on it passes.
    """
    found = []
    for modality, axes in facts.coarseness.items():
        coarse = [_coarse(value) for value in axes]
        others = [other for m, other in facts.coarseness.items() if m is not modality]
        alone = [n for n in (0, 1) if coarse[n] and any(not _coarse(other[n]) for other in others)]
        if all(coarse):
            found.append(warning(f"{modality}: blurred on all axes", _LOOK))
        elif alone:
            said = f"{modality}: blurred {' and '.join(AXES[n] for n in alone)}, where another modality is sharp"
            found.append(warning(said, _LOOK))
    return found


def thin_slices(facts: Facts) -> Sequence[Finding]:
    """Thick slices resampled to a fine grid: smooth, or in stairs, along one axis.

    Note: most clinical images are so (31 of the 40 of ten real cases), and a network can learn it, but what is small is lost
    between slices. By the measure and the threshold of blur, where one axis alone is coarse.
    """
    thick: dict[str, list[str]] = {}
    for modality, axes in facts.coarseness.items():
        coarse = [n for n in range(3) if _coarse(axes[n])]
        if len(coarse) == 1:
            thick.setdefault(AXES[coarse[0]], []).append(modality)
    said = "usual, but what is small is lost between them"
    return [note(f"{', '.join(which)}: thick slices, stacked {axis}: {said}") for axis, which in thick.items()]


_LOOK: Final = "look at the case in a viewer: motion, or slices in another direction; leave it out if the tumour can't be seen"


def _coarse(value: float | None) -> bool:
    return value is not None and value < COARSE


def _centre(mask: Mask) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    counts = [mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    return np.array([np.average(np.arange(len(count)), weights=count) for count in counts])


def _on_faces(facts: Facts) -> Mapping[str, float]:
    found = {}
    for axis, names in enumerate(FACES):
        one_mm2 = float(np.prod([side for other, side in enumerate(facts.spacing_mm) if other != axis]))
        for at, name in zip((0, -1), names, strict=True):
            touches = facts.box[axis][0] <= 0 if at == 0 else facts.box[axis][1] >= facts.shape[axis]
            mm2 = np.count_nonzero(np.moveaxis(facts.brain, axis, 0)[at]) * one_mm2 if touches else 0.0
            if mm2 > (MOST_ON_THE_FLOOR_MM2 if name == "bottom" else MOST_ON_A_FACE_MM2):
                found[name] = mm2
    return found
