"""Volumes, voxels and lesions of a segmentation, by region and by label."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from brainunet.labels import REGIONS, TUMOUR_LABELS, Label
from brainunet.prediction.parts import box_around, mask_of, part_sizes

ENTROPY_STEPS: Final = 255  # of the map's uint8: 0 is certain, 255 is all labels as likely


def statistics(
    labels: npt.NDArray[np.uint8], spacing_mm: tuple[float, float, float], entropy: npt.NDArray[np.uint8] | None
) -> dict[str, dict[str, Any]]:
    """Name of a region or label -> its figures; what has no value is None, and ``reason`` says why.

    Args:
        labels: (X, Y, Z) numbers of ``labels.Label``.
        entropy: (X, Y, Z) of 0 to ENTROPY_STEPS, or None where it was not asked for.
    """
    voxel_mm3 = float(np.prod(spacing_mm))
    parts: dict[str, tuple[Label, ...]] = {region.value: members for region, members in REGIONS.items()}
    parts |= {label.name: (label,) for label in TUMOUR_LABELS if label.name not in parts}
    box = box_around(labels)
    within = None if entropy is None else entropy[box]
    return {name: _figures(mask_of(labels[box], members), voxel_mm3, within) for name, members in parts.items()}


def _figures(mask: npt.NDArray[np.bool_], voxel_mm3: float, entropy: npt.NDArray[np.uint8] | None) -> dict[str, Any]:
    n = int(np.count_nonzero(mask))
    figures: dict[str, Any] = {
        "n_voxels": n,
        "volume_mm3": round(n * voxel_mm3, 3),
        "volume_ml": round(n * voxel_mm3 / 1000, 6),
        "n_lesions": 0,
        "largest_lesion_ml": None,
        "mean_entropy": None,
        "reason": None,
    }
    if not n:
        figures["reason"] = "none of it was found, so it has no largest lesion and no entropy"
        return figures
    sizes = part_sizes(mask)
    figures["n_lesions"] = len(sizes)
    figures["largest_lesion_ml"] = round(int(sizes.max()) * voxel_mm3 / 1000, 6)
    if entropy is None:
        figures["reason"] = "the entropy was not computed"
    else:
        figures["mean_entropy"] = round(float(entropy[mask].mean(dtype=np.float64)) / ENTROPY_STEPS, 4)
    return figures
