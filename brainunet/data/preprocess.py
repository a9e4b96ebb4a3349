"""From NIfTI files to the network's input: check the grid, mask the brain, crop to it, clip and z-score inside it.

The crop is the brain's bounding box, not a standard size (docs/adr/0007): the network takes any size, and a fixed box either
cuts brains or pads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainunet.config import PreprocessConfig
from brainunet.data.volumes import describe_grid, read_volume, same_grid
from brainunet.errors import DataError, GeometryMismatch, MissingModality, UnknownLabel
from brainunet.labels import STORED_LABELS, Convention, Label, Modality
from brainunet.records import Case, Volume

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case as the network sees it.

    Attributes:
        image: (C, X, Y, Z) float16, one channel per configured modality, 0 outside the brain; half precision because the
            noise of an MRI is a hundred times its rounding, and a site's cache is half the size.
        label: (X, Y, Z) uint8 in the numbers of ``labels.Label``, or None.
        box: where the crop lies in the canonical volume, (start, stop) per axis.
        affine: (4, 4) of the canonical volume before the crop.
        shape: of the canonical volume before the crop.
        spacing_mm: sides of a voxel.
    """

    image: npt.NDArray[np.float16]
    label: npt.NDArray[np.uint8] | None
    box: Box
    affine: npt.NDArray[np.float64]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


def prepare(case: Case, modalities: Sequence[Modality], config: PreprocessConfig) -> PreparedCase:
    """Read and normalise one case; the channels follow ``modalities``.

    Raises:
        DataError: a missing modality, an unreadable file, grids that differ, an empty or constant modality, a label outside
            the convention, a segmentation of one label everywhere.
    """
    paths = files_of(case, modalities)
    volumes = [read_volume(path) for path in paths]
    first = volumes[0]
    for path, volume in zip(paths, volumes, strict=True):
        if not same_grid(first, volume):
            raise GeometryMismatch(
                path,
                found=describe_grid(volume),
                expected=f"the grid of {paths[0].name}: {describe_grid(first)}",
                remedy="resample the files of a case to one grid",
            )
    label = None if case.label is None else read_label(case.label, volumes.pop(), case.convention)
    mask = np.logical_or.reduce([volume.array != 0 for volume in volumes])
    if not mask.any():
        raise DataError(
            case.case_id,
            found="every voxel of every modality is 0",
            expected="a brain",
            remedy="export the volumes again, or leave the case out",
        )
    # a label outside the brain must stay in the crop, or its voxels would be missing from every score
    box = bounding_box(mask if label is None else mask | (label > 0), config.crop_margin_voxels)
    crop = tuple(slice(start, stop) for start, stop in box)
    inside = mask[crop]
    channels = [
        normalise(volume.array[crop], inside, config.clip_percentiles, case.images[m])
        for m, volume in zip(modalities, volumes, strict=True)
    ]
    return PreparedCase(
        image=np.stack(channels),
        label=None if label is None else np.ascontiguousarray(label[crop]),
        box=box,
        affine=first.affine,
        shape=(first.array.shape[0], first.array.shape[1], first.array.shape[2]),
        spacing_mm=first.spacing_mm,
    )


def read_label(
    path: Path, volume: Volume, convention: Convention, *, option: str = "--convention", may_be_empty: bool = False
) -> npt.NDArray[np.uint8]:
    """The segmentation (X, Y, Z) translated from the convention's numbers to those of ``labels.Label``.

    Args:
        option: of the command line, by which the convention is said.
        may_be_empty: background everywhere is a segmentation too (of a prediction that found nothing).

    Raises:
        UnknownLabel: a number, or a fraction, that the convention does not know.
        DataError: one label everywhere.
    """
    stored = STORED_LABELS[convention]
    found = np.unique(volume.array)
    unknown = [float(value) for value in found if float(value) not in stored]
    if unknown:
        raise UnknownLabel(
            path,
            found=f"label {', '.join(f'{value:g}' for value in unknown[:4])}",
            expected=f"only {', '.join(str(value) for value in stored)} ({convention})",
            remedy=f"check {option}: enhancing tumour is 4 in brats2021 and 3 in brats2023; in BraTS-GLI 2024 4 is the "
            "resection cavity, which is not supported",
        )
    if len(found) == 1 and not (may_be_empty and found[0] == Label.BACKGROUND):
        raise DataError(
            path,
            found=f"label {found[0]:g} everywhere",
            expected="a tumour and its background",
            remedy="export the segmentation again, or leave the case out",
        )
    table = np.zeros(max(stored) + 1, np.uint8)
    for value, label in stored.items():
        table[value] = label
    return np.asarray(table[volume.array.astype(np.uint8)])


def bounding_box(mask: npt.NDArray[np.bool_], margin_voxels: int) -> Box:
    """The smallest box around the True voxels of (X, Y, Z), widened by a margin and cut at the volume's edge."""
    sides = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        sides.append((max(0, int(hit[0]) - margin_voxels), min(mask.shape[axis], int(hit[-1]) + 1 + margin_voxels)))
    return (sides[0], sides[1], sides[2])


def normalise(
    array: npt.NDArray[np.generic], brain: npt.NDArray[np.bool_], percentiles: tuple[float, float], path: Path
) -> npt.NDArray[np.float16]:
    """Clip to percentiles of the brain, then (x - mean) / standard deviation inside it; 0 outside.

    Raises:
        DataError: a modality that is constant inside the brain.
    """
    values = array[brain].astype(np.float32)
    low, high = np.percentile(values, percentiles)
    np.clip(values, low, high, out=values)
    spread = float(values.std(dtype=np.float64))
    if spread <= 1e-6 * max(abs(float(low)), abs(float(high))):
        raise DataError(
            path,
            found=f"the same intensity ({low:g}) all over the brain",
            expected="an image",
            remedy="export the volume again, or choose modalities without it",
        )
    out = np.zeros(array.shape, np.float16)
    out[brain] = (values - values.mean(dtype=np.float64)) / spread
    return out


def files_of(case: Case, modalities: Sequence[Modality]) -> list[Path]:
    """The images in the order of ``modalities``, and last the segmentation where there is one.

    Raises:
        MissingModality: the case has no file for a modality.
    """
    missing = [m.value for m in modalities if m not in case.images]
    if missing:
        raise MissingModality(
            case.case_id,
            found=f"no file for {', '.join(missing)} (has {', '.join(m.value for m in case.images)})",
            expected="one file for each modality of the model",
            remedy="add the file, or choose a model for the modalities that are there",
        )
    return [case.images[m] for m in modalities] + ([case.label] if case.label else [])
