"""Volumes, voxels and lesions of a segmentation, by region and by label."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainunet.labels import REGIONS, TUMOUR_LABELS, Label

TOUCHING = np.ones((3, 3, 3), bool)  # by a corner is enough to be one lesion


def statistics(
    labels: npt.NDArray[np.uint8], spacing_mm: tuple[float, float, float], entropy: npt.NDArray[np.float32] | None
) -> dict[str, dict[str, Any]]:
    """Name of a region or label -> its figures; what has no value is None, and ``reason`` says why.

    Args:
        labels: (X, Y, Z) numbers of ``labels.Label``.
        entropy: (X, Y, Z) of 0 to 1, or None where it was not asked for.
    """
    voxel_mm3 = float(np.prod(spacing_mm))
    parts: dict[str, tuple[Label, ...]] = {region.value: members for region, members in REGIONS.items()}
    parts |= {label.name: (label,) for label in TUMOUR_LABELS if label.name not in parts}
    return {name: _figures(np.isin(labels, members), voxel_mm3, entropy) for name, members in parts.items()}


def _figures(mask: npt.NDArray[np.bool_], voxel_mm3: float, entropy: npt.NDArray[np.float32] | None) -> dict[str, Any]:
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
    sizes = lesion_sizes(mask)
    figures["n_lesions"] = len(sizes)
    figures["largest_lesion_ml"] = round(int(sizes.max()) * voxel_mm3 / 1000, 6)
    if entropy is None:
        figures["reason"] = "the entropy was not computed"
    else:
        figures["mean_entropy"] = round(float(entropy[mask].mean(dtype=np.float64)), 4)
    return figures


def lesion_sizes(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Voxels of each connected part of (X, Y, Z); none where there is no True.

    >>> lesion_sizes(np.array([[[True, True, False, True]]])).tolist()
    [2, 1]
    """
    parts, _ = ndimage.label(mask, TOUCHING)
    return np.asarray(np.bincount(parts.ravel())[1:])
