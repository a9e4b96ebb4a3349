"""The grid that the network knows, 1 mm on each side, and the way back to the grid of the files.

Along the voxels' own axes, so an oblique scan stays oblique. Probabilities come back by linear interpolation and only then
become labels: to interpolate or to copy labels first would tear thin rims apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from brainunet.config import PreprocessConfig
from brainunet.data.preprocess import Box, bounding_box, brain_of, normalise, require_grid
from brainunet.data.skull import require_stripped
from brainunet.data.volumes import MAX_VOXELS, read_volume
from brainunet.errors import DataError
from brainunet.inference.prediction import entropy_of, largest
from brainunet.labels import Label, Modality
from brainunet.records import Case, Volume

SIDE_MM: Final = 1.0
FWHM: Final = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in standard deviations
TOLERANCE: Final = 0.02  # of a side: 0.98 to 1.02 mm is taken as it is

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ReadCase:
    """A case as the network is to see it, and what leads back.

    Attributes:
        image: (C, x, y, z) float16, the normalised crop on the network's grid; a modality that is missing is 0 everywhere, as
            in a training that left it out (``AugmentConfig.dropout_probability``).
        box: of the crop on the network's grid.
        network_shape: of that grid, uncropped.
        brain: (X, Y, Z) on the grid of the files, in canonical orientation.
        pictures: modality -> intensities on the grid of the files; without those that are missing.
        missing: modalities of the model that the case doesn't have.
        spacing_mm: of the files.
    """

    image: npt.NDArray[np.float16]
    box: Box
    network_shape: tuple[int, int, int]
    brain: npt.NDArray[np.bool_]
    pictures: dict[Modality, npt.NDArray[Any]]
    spacing_mm: tuple[float, float, float]
    missing: tuple[Modality, ...] = ()

    @property
    def resampled(self) -> bool:
        return needs_resampling(self.spacing_mm)


def needs_resampling(spacing_mm: Sequence[float]) -> bool:
    """Whether a side is off 1 mm by more than the tolerance.

    >>> needs_resampling((1.0, 0.99, 1.019)), needs_resampling((1.0, 1.0, 5.0))
    (False, True)
    """
    return any(abs(side - SIDE_MM) > TOLERANCE * SIDE_MM for side in spacing_mm)


def read_case(case: Case, modalities: Sequence[Modality], config: PreprocessConfig) -> ReadCase:
    """Read, check, resample where needed, and normalise: ``modalities`` in this order, those that the case has.

    Raises:
        DataError: an unreadable file, grids that differ, an empty or constant modality, a head with its
            skull, or a volume that would have too many voxels at 1 mm.
    """
    present = [m for m in modalities if m in case.images]
    paths = [case.images[m] for m in present]
    volumes = [read_volume(path) for path in paths]
    first = volumes[0]
    for path, volume in zip(paths, volumes, strict=True):
        require_grid(path, volume, paths[0], first)
    masks = [volume.array != 0 for volume in volumes]
    brain = brain_of(case.case_id, masks)
    for path, own in zip(paths, masks, strict=True):
        require_stripped(path, own, first.spacing_mm)
    del masks
    arrays = [volume.array for volume in volumes]
    mask = brain
    if needs_resampling(first.spacing_mm):
        shape = _shape_at_1mm(case.case_id, first)
        mask = _onto(brain, shape, first.spacing_mm) >= 0.5
        mask = brain_of(case.case_id, [mask])
        arrays = [np.where(mask, _onto(array, shape, first.spacing_mm), np.float32(0)) for array in arrays]
    box = bounding_box(mask, config.crop_margin_voxels)
    crop = tuple(slice(start, stop) for start, stop in box)
    image = np.zeros((len(modalities), *mask[crop].shape), np.float16)
    for modality, array, path in zip(present, arrays, paths, strict=True):
        image[modalities.index(modality)] = normalise(array[crop], mask[crop], config.clip_percentiles, path)
    pictures = {m: volume.array for m, volume in zip(present, volumes, strict=True)}
    x, y, z = mask.shape
    missing = tuple(m for m in modalities if m not in case.images)
    return ReadCase(image, box, (x, y, z), brain, pictures, first.spacing_mm, missing)


def labels_on_files_grid(probabilities: FloatArray, read: ReadCase) -> npt.NDArray[np.uint8]:
    """Probabilities of the crop (L, x, y, z) -> label numbers (X, Y, Z) on the grid of the files."""
    labels = np.zeros(read.brain.shape, np.uint8)  # beyond the crop all is background
    channels, there = _on_files_grid(probabilities, read)
    labels[there] = largest(channels)
    return labels


def entropy_on_files_grid(probabilities: FloatArray, read: ReadCase) -> FloatArray:
    """Probabilities of the crop (L, x, y, z) -> their entropy, 0 to 1, (X, Y, Z) on the grid of the files."""
    entropy = np.zeros(read.brain.shape, np.float32)
    channels, there = _on_files_grid(probabilities, read)
    entropy[there] = entropy_of(channels)
    return entropy


def probabilities_on_files_grid(probabilities: FloatArray, read: ReadCase) -> FloatArray:
    """Probabilities of the crop (L, x, y, z) -> those on the grid of the files (L, X, Y, Z)."""
    whole = np.zeros((len(probabilities), *read.brain.shape), np.float32)
    whole[Label.BACKGROUND] = 1
    channels, there = _on_files_grid(probabilities, read)
    for label, channel in enumerate(channels):
        whole[label][there] = channel
    return whole


def _on_files_grid(probabilities: FloatArray, read: ReadCase) -> tuple[Iterable[FloatArray], tuple[slice, ...]]:
    """Each label's probabilities on the grid of the files, one after the other (a fine grid has no room for all), and where."""
    if not read.resampled:
        return probabilities, tuple(slice(*side) for side in read.box)
    positions: list[npt.NDArray[np.floating]] = []
    there: list[slice] = []
    for (start, stop), n, spacing in zip(read.box, read.brain.shape, read.spacing_mm, strict=True):
        at = (np.arange(n) + 0.5) * spacing / SIDE_MM - 0.5
        inside = np.flatnonzero((at > start - 1) & (at < stop))
        if not len(inside):  # a crop thinner than a slice, between two of them
            inside = np.array([int(np.argmin(np.abs(at - (start + stop - 1) / 2)))])
        there.append(slice(int(inside[0]), int(inside[-1]) + 1))
        positions.append(at[inside] - (start - 1))
    channels = (
        interpolate(np.pad(channel, 1, constant_values=float(label == Label.BACKGROUND)), positions)
        for label, channel in enumerate(probabilities)
    )
    return channels, tuple(there)


def interpolate(array: npt.NDArray[Any], positions: Sequence[npt.NDArray[np.floating]]) -> FloatArray:
    """array (X, Y, Z) at the grid of these positions along each axis, in voxels; linear, and the edge's value beyond the edge.

    >>> interpolate(np.array([[[0.0, 10.0, 20.0]]]), [np.zeros(1), np.zeros(1), np.array([-1, 0.5, 2])]).tolist()
    [[[0.0, 5.0, 20.0]]]
    """
    out = np.asarray(array, np.float32)
    for axis, at in enumerate(positions):
        n = out.shape[axis]
        at = np.clip(at, 0, n - 1)
        low = np.minimum(at.astype(np.intp), max(0, n - 2))
        share = np.expand_dims((at - low).astype(np.float32), tuple(other for other in range(3) if other != axis))
        below = np.take(out, low, axis=axis)
        below += share * (np.take(out, np.minimum(low + 1, n - 1), axis=axis) - below)
        out = below
    return out


def _shape_at_1mm(case_id: str, volume: Volume) -> tuple[int, int, int]:
    x, y, z = (
        max(1, round(n * side / SIDE_MM)) for n, side in zip(volume.array.shape, volume.spacing_mm, strict=True)
    )  # fmt: skip
    if x * y * z > MAX_VOXELS:
        raise DataError(
            case_id,
            found=f"{x} x {y} x {z} voxels at 1 mm",
            expected=f"at most {MAX_VOXELS}",
            remedy="check the spacing in the header, or crop the volumes to the head",
        )
    return x, y, z


def _onto(array: npt.NDArray[Any], shape: tuple[int, int, int], spacing_mm: Sequence[float]) -> FloatArray:
    """On a grid of 1 mm whose first voxel begins where that of the files does.

    Finer sides are smoothed before, or detail too small for 1 mm would come back as a pattern that is not there: by the width
    that a voxel of 1 mm has more than theirs (M. J. Cardoso et al., MICCAI 2015, doi:10.1007/978-3-319-24571-3_81).
    """
    array = np.asarray(array, np.float32)
    for axis, side in enumerate(spacing_mm):
        if side < SIDE_MM * (1 - TOLERANCE):
            array = gaussian_filter1d(array, math.sqrt((SIDE_MM / side) ** 2 - 1) / FWHM, axis, mode="nearest")
    at = [(np.arange(n) + 0.5) * SIDE_MM / side - 0.5 for n, side in zip(shape, spacing_mm, strict=True)]
    return interpolate(array, at)
