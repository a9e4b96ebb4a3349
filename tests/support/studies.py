"""Phantom studies in memory, to be changed by a test and written as a case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainunet.data.phantom import make_phantom
from brainunet.labels import Convention, Modality
from brainunet.records import Case
from tests.support.cases import AFRICA, only_case
from tests.support.nifti import write_nifti

Array: TypeAlias = npt.NDArray[Any]
LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass
class Study:
    """One case in memory, in the order and orientation of its files; a fault changes it before or after it is written.

    Attributes:
        headers: what ``write_nifti`` is told of a file, by its kind.
        damage: done to the written files.
    """

    images: dict[Modality, Array]
    label: Array | None
    affine: Array = field(default_factory=LPS.copy)
    headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    damage: Callable[[dict[str, Path]], object] = lambda _: None

    @property
    def brain(self) -> npt.NDArray[np.bool_]:
        return np.asarray(np.logical_or.reduce([image != 0 for image in self.images.values()]))


@lru_cache
def _drawn(side: int) -> tuple[Mapping[Modality, Array], Array]:
    phantom = make_phantom(np.random.default_rng(3), (side, side, side), "gli", "CRV")
    return phantom.images, phantom.label


def sound(side: int = 64) -> Study:
    """A study in which no check finds anything."""
    images, label = _drawn(side)
    return Study({modality: image.copy() for modality, image in images.items()}, label.copy())


def write_study(study: Study, folder: Path, case_id: str = AFRICA) -> Case:
    """Its files in ``folder/case_id``, by BraTS 2023+ names."""
    arrays = {modality.value: image for modality, image in study.images.items()}
    if study.label is not None:
        arrays["seg"] = study.label
    paths = {kind: folder / case_id / f"{case_id}-{kind}.nii.gz" for kind in arrays}
    for kind, array in arrays.items():
        write_nifti(paths[kind], array, **{"sform": study.affine, **study.headers.get(kind, {})})
    study.damage(paths)
    return only_case(folder / case_id, need_label=False, convention=Convention.BRATS2023)


def add_skull(study: Study, *, noise: float = 0.0) -> None:
    """A head made up around the brain: fluid (2 voxels of a grid of 96), dark bone (5), bright scalp (4), and behind it noise.

    Args:
        noise: its deviation, in per cent of the brain's bright tissue; 0 leaves a background of 0.
    """
    thickness = max(1, round(study.brain.shape[0] / 96))
    depth = ndimage.distance_transform_edt(~study.brain) / thickness
    for image in study.images.values():
        bright = float(np.percentile(image[image > 0], 80))
        rng = np.random.default_rng(5)
        shell = np.select([depth <= 2, depth <= 7, depth <= 11], [0.5 * bright, 0.12 * bright, 1.3 * bright], 0.0)
        textured = shell * rng.uniform(0.85, 1.15, image.shape)
        if noise:
            textured = np.where(depth > 11, np.abs(rng.normal(0, noise / 100 * bright, image.shape)) + 1, textured)
        image[image == 0] = textured[image == 0].astype(image.dtype)
