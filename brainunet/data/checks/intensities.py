"""Checks of the numbers in the images: constant, copied, clipped, negative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from brainunet.config import PreprocessConfig
from brainunet.data.checks.facts import Facts
from brainunet.data.checks.findings import Finding, error, note, refusal, warning
from brainunet.data.preprocess import clipped
from brainunet.errors import DataError

PLATEAU: Final = 0.001


def not_constant(facts: Facts) -> Sequence[Finding]:
    """A modality with one intensity all over the brain. Error, because training refuses it, by the same rule."""
    found = []
    for modality, image in facts.images.items():
        try:
            clipped(image[facts.brain], PreprocessConfig().clip_percentiles, facts.case.images[modality])
        except DataError as refused:
            found.append(refusal(refused))
    return found


def not_copied(facts: Facts) -> Sequence[Finding]:
    """Two modalities of a case that hold the same image, voxel by voxel.

    Error: one of the two is missing, and a network would be taught that a contrast looks like another. Equal SHA-256 of the
    intensities, so there is no threshold; a copy that was scaled or resampled is not found.
    """
    by_digest: dict[str, list[str]] = {}
    for modality, digest in facts.digests.items():
        by_digest.setdefault(digest, []).append(modality)
    remedy = "export the modality that is missing, or choose modalities without it"
    return [error(f"{' and '.join(same)} hold the same image", remedy) for same in by_digest.values() if len(same) > 1]


def not_clipped(facts: Facts) -> Sequence[Finding]:
    """Intensities cut at a ceiling: the largest one is what the file's number type can hold, or many voxels share it.

    Warning: what was brighter looks alike, and bright is where contrast agent is. The first sign needs a single voxel; one
    alone may also come of an export that stretches every image to the range of the type, which does no harm. The second
    begins at 0.1 % of the brain: in all 40 images of the ten real cases the highest intensity is that of one voxel in a
    million. Preparing cuts the brightest 0.5 % anyway, so below that share training sees no difference: the finding says so.
    """
    alike: dict[str, list[str]] = {}
    harmless = (100 - PreprocessConfig().clip_percentiles[1]) / 100
    for modality, image in facts.images.items():
        values = image[facts.brain]
        highest = values.max()
        at = int(np.count_nonzero(values == highest))
        share = at / len(values)
        stored = facts.stored[modality]
        ceiling = stored.ceiling == highest
        if (not ceiling and share < PLATEAU) or highest == values.min():
            continue
        said = f"{at:,} {'voxel has' if at == 1 else 'voxels have'} the highest intensity, {highest:g}"
        said += f", which is the most that {stored.number_type} holds" if ceiling else ""
        said += ": clipped there, or stretched to it" if at == 1 else f": clipped ({share:.2%} of the brain)"
        said += " (preparing cuts more than that anyway)" if share < harmless else ""
        alike.setdefault(said, []).append(modality)
    remedy = "export it again from the scanner's images, without scaling to a fixed range"
    return [warning(f"{', '.join(which)}: {said}", remedy) for said, which in alike.items()]


def not_negative(facts: Facts) -> Sequence[Finding]:
    """Intensities below 0 inside the brain.

    Note: they are legal. Some exports subtract an offset, and one BraTS-Africa case reaches -290. A tool that takes "above 0"
    for the brain loses them; ours takes "not 0".
    """
    below = {m: int(np.count_nonzero(image < 0)) for m, image in facts.images.items() if image.dtype.kind != "u"}
    which = [modality for modality, count in below.items() if count]
    if not which:
        return []
    lowest = min(facts.images[modality].min() for modality in which)
    most = max(below.values())
    many = "1 voxel" if most == 1 else f"up to {most:,} voxels"
    return [note(f"{', '.join(which)}: {many} below 0 (lowest {lowest:g}): legal, and kept as brain")]
