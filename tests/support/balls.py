"""A brain that is a ball with a brighter ball in it, on any grid, under a name that must not get out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from brainunet.labels import Modality
from brainunet.prediction.inputs import cases_to_segment
from brainunet.records import Case

nib: Any = nibabel  # has hardly any types
THREE = (Modality.T1C, Modality.T2W, Modality.T2F)
SECRET = "MRN12345"


def ball(shape: tuple[int, int, int], spacing: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.bool_]:
    grids = np.ogrid[tuple(slice(0, n) for n in shape)]
    distance = sum(((g - (n - 1) / 2) * s) ** 2 for g, n, s in zip(grids, shape, spacing, strict=True))
    return np.asarray(distance <= radius**2)


def ball_case(
    folder: Path,
    affine: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    name: str = SECRET,
    *,
    qform: int = 1,
    sform: int = 1,
) -> Case:
    """A ball of a brain with a brighter ball in it, in every modality."""
    folder.mkdir(parents=True, exist_ok=True)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    for number, modality in enumerate(THREE):
        image = np.random.default_rng(number).integers(50, 60, shape) * ball(shape, spacing, 18)
        image[ball(shape, spacing, 7)] += 200
        made = nib.Nifti1Image(image.astype(np.int16), affine)
        made.set_qform(affine, code=qform)
        made.set_sform(affine, code=sform)
        made.header["descrip"] = f"of {SECRET}"
        nib.save(made, folder / f"{name}-{modality.value}.nii.gz")
    return cases_to_segment([folder], THREE).cases[0]
