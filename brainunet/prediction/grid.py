"""The grid that the network knows, 1 mm on each side, and the way back to the grid of the files.

Along the voxels' own axes, so an oblique scan stays oblique. Probabilities come back by linear interpolation and only then
become labels: to interpolate or to copy labels first would tear thin rims apart.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
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
from brainunet.prediction.slabs import slabs
from brainunet.prediction.statistics import ENTROPY_STEPS
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
        picture: (X, Y, Z) intensities of the first modality that is there, on the grid of the files, for people to look at.
        missing: modalities of the model that the case doesn't have.
        spacing_mm: of the files.
    """

    image: npt.NDArray[np.float16]
    box: Box
    network_shape: tuple[int, int, int]
    brain: npt.NDArray[np.bool_]
    picture: npt.NDArray[Any]
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

    One file after the other, and a finer grid than the network's is left at once: only the first file stays as it is.

    Raises:
        DataError: an unreadable file, grids that differ, an empty or constant modality, one image for two modalities, a head
            with its skull, or a volume that would have too many voxels at 1 mm.
    """
    present = [m for m in modalities if m in case.images]
    paths = [case.images[m] for m in present]
    first = _read(paths[0])
    shape = shape_at_1mm(case.case_id, first.array.shape, first.spacing_mm) if needs_resampling(first.spacing_mm) else None
    brain = np.zeros(first.array.shape, bool)
    arrays = []
    for path in paths:
        volume = first if path is paths[0] else _read(path)
        require_grid(path, volume, paths[0], first)
        own = volume.array != 0
        require_stripped(path, own, first.spacing_mm)
        brain |= own
        arrays.append(volume.array if shape is None else _onto(volume.array, shape, first.spacing_mm))
        del volume, own
    mask = brain = brain_of(case.case_id, [brain])
    _require_distinct(case.case_id, dict(zip(present, arrays, strict=True)))
    if shape is not None:
        mask = _onto(brain, shape, first.spacing_mm) >= 0.5
        if not mask.any():
            raise DataError(
                case.case_id,
                found=f"voxels of {' x '.join(f'{side:g}' for side in first.spacing_mm)} mm, and a brain of less than 1 mm",
                expected="a head, in millimetres",
                remedy="check the spacing in the header",
            )
        for array in arrays:
            array[~mask] = 0
    box = bounding_box(mask, config.crop_margin_voxels)
    crop = tuple(slice(start, stop) for start, stop in box)
    image = np.zeros((len(modalities), *mask[crop].shape), np.float16)
    for modality, array, path in zip(present, arrays, paths, strict=True):
        image[modalities.index(modality)] = normalise(array[crop], mask[crop], config.clip_percentiles, path)
    x, y, z = mask.shape
    missing = tuple(m for m in modalities if m not in case.images)
    return ReadCase(image, box, (x, y, z), brain, first.array, first.spacing_mm, missing)


def _read(path: Path) -> Volume:
    """A volume in no more than four bytes a voxel: a network and a picture need no more."""
    volume = read_volume(path)
    return volume if volume.array.dtype.itemsize <= 4 else replace(volume, array=volume.array.astype(np.float32))


def _require_distinct(case_id: str, images: Mapping[Modality, npt.NDArray[Any]]) -> None:
    """Pass if no image, modality -> (X, Y, Z), stands for two modalities, also in files whose bytes differ.

    Raises:
        DataError: one does.
    """
    for one, other in itertools.combinations(images, 2):
        if np.array_equal(images[one], images[other]):
            raise DataError(
                case_id,
                found=f"the same image as {one} and as {other}",
                expected="an image of its own for each modality",
                remedy="find out which of them it is, and name the right file for the other",
            )


def labels_on_files_grid(probabilities: FloatArray, read: ReadCase) -> npt.NDArray[np.uint8]:
    """Probabilities of the crop (L, x, y, z) -> label numbers (X, Y, Z) on the grid of the files."""
    return maps_on_files_grid(probabilities, read, uncertainty=False)[0]


def maps_on_files_grid(
    probabilities: FloatArray, read: ReadCase, *, uncertainty: bool = True
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Probabilities of the crop (L, x, y, z) -> label numbers and, if asked for, entropy in ENTROPY_STEPS, both (X, Y, Z) on
    the grid of the files. A fine grid has no room for all the probabilities, so they are never there at once."""
    labels = np.zeros(read.brain.shape, np.uint8)  # beyond the crop all is background,
    entropy = np.zeros(read.brain.shape, np.uint8) if uncertainty else None  # and certain
    channels = [_Channel.of(probabilities, label, read) for label in range(len(probabilities))]
    for where, slab in _there(read):
        values = [channel.at(slab) for channel in channels]
        labels[where] = largest(values)
        if entropy is not None:
            entropy[where] = np.rint(entropy_of(values) * ENTROPY_STEPS)
    return labels, entropy


def probabilities_on_files_grid(probabilities: FloatArray, read: ReadCase) -> Iterator[FloatArray]:
    """Probabilities of the crop (L, x, y, z) -> for one label after the other those on the grid of the files (X, Y, Z)."""
    for label in range(len(probabilities)):
        whole = np.full(read.brain.shape, label == Label.BACKGROUND, np.float32)
        channel = _Channel.of(probabilities, label, read)
        for where, slab in _there(read):
            whole[where] = channel.at(slab)
        yield whole


@dataclass(frozen=True, eq=False)
class _Channel:
    """A label's probabilities: on the grid of the files already, or with a margin and where in it the files' voxels lie."""

    values: FloatArray
    positions: tuple[npt.NDArray[np.float64], ...] | None

    @classmethod
    def of(cls, probabilities: FloatArray, label: int, read: ReadCase) -> _Channel:
        if not read.resampled:
            return cls(probabilities[label], None)
        padded = np.pad(probabilities[label], 1, constant_values=float(label == Label.BACKGROUND))
        return cls(padded, tuple(at for _, at in _reached(read)))

    def at(self, slab: slice) -> FloatArray:
        """On the grid of the files, of a slab of those voxels that the crop reaches."""
        if self.positions is None:
            return self.values[slab]
        x, y, z = self.positions
        return interpolate(self.values, (x[slab], y, z))


def _there(read: ReadCase) -> Iterator[tuple[tuple[slice, ...], slice]]:
    """Slabs of the files' grid that the crop reaches: where they lie on that grid, and in what it reaches."""
    start, *others = [there for there, _ in _reached(read)]
    shape = [there.stop - there.start for there in (start, *others)]
    for slab, *_ in slabs(shape):
        yield (slice(start.start + slab.start, start.start + slab.stop), *others), slab


def _reached(read: ReadCase) -> list[tuple[slice, npt.NDArray[np.float64]]]:
    """For each axis the files' voxels that the crop reaches, and their places in the crop with a voxel of margin."""
    if not read.resampled:
        return [(slice(start, stop), np.arange(1, stop - start + 1, dtype=np.float64)) for start, stop in read.box]
    found: list[tuple[slice, npt.NDArray[np.float64]]] = []
    for (start, stop), n, spacing in zip(read.box, read.brain.shape, read.spacing_mm, strict=True):
        at = (np.arange(n) + 0.5) * spacing / SIDE_MM - 0.5
        inside = np.flatnonzero((at > start - 1) & (at < stop))
        if not len(inside):  # a crop thinner than a slice, between two of them
            inside = np.array([int(np.argmin(np.abs(at - (start + stop - 1) / 2)))])
        found.append((slice(int(inside[0]), int(inside[-1]) + 1), at[inside] - (start - 1)))
    return found


def interpolate(array: npt.NDArray[Any], positions: Sequence[npt.NDArray[np.floating]]) -> FloatArray:
    """array (X, Y, Z) at the grid of these positions along each axis, in voxels; linear, and the edge's value beyond the edge.

    >>> interpolate(np.array([[[0.0, 10.0, 20.0]]]), [np.zeros(1), np.zeros(1), np.array([-1, 0.5, 2])]).tolist()
    [[[0.0, 5.0, 20.0]]]
    """
    for axis, at in enumerate(positions):
        array = _along(array, axis, at)
    return np.asarray(array, np.float32)


def _along(array: npt.NDArray[Any], axis: int, at: npt.NDArray[np.floating]) -> FloatArray:
    n = array.shape[axis]
    at = np.clip(at, 0, n - 1)
    low = np.minimum(at.astype(np.intp), max(0, n - 2))
    share = np.expand_dims((at - low).astype(np.float32), tuple(other for other in range(3) if other != axis))
    below = np.take(array, low, axis=axis).astype(np.float32, copy=False)
    below += share * (np.take(array, np.minimum(low + 1, n - 1), axis=axis) - below)
    return below


def shape_at_1mm(case_id: str, shape: Sequence[int], spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """How many voxels of 1 mm a volume has along its axes.

    Raises:
        DataError: too many.
    """
    x, y, z = (max(1, round(n * side / SIDE_MM)) for n, side in zip(shape, spacing_mm, strict=True))
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
    that a voxel of 1 mm has more than theirs (M. J. Cardoso et al., MICCAI 2015, doi:10.1007/978-3-319-24571-3_81). Along the
    axis that shrinks most first, and slab by slab, so that no fine volume of float32 is ever there.
    """
    for axis in sorted(range(3), key=lambda axis: spacing_mm[axis]):
        side, n = spacing_mm[axis], shape[axis]
        at = (np.arange(n) + 0.5) * SIDE_MM / side - 0.5
        made = np.empty((*array.shape[:axis], n, *array.shape[axis + 1 :]), np.float32)
        for slab in slabs(array.shape, axis=1 if axis == 0 else 0):
            piece = array[slab].astype(np.float32)
            if side < SIDE_MM * (1 - TOLERANCE):
                piece = gaussian_filter1d(piece, math.sqrt((SIDE_MM / side) ** 2 - 1) / FWHM, axis, mode="nearest")
            made[slab] = _along(piece, axis, at)
        array = made
    return array
