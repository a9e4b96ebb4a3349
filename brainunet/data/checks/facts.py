"""A case read once, and what several checks want to know of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainunet.data.preprocess import Box, bounding_box, brain_of, files_of, read_label, require_grid
from brainunet.data.skull import sign_of_a_head
from brainunet.data.volumes import StoredAs, read_volume, stored_as
from brainunet.errors import DataError
from brainunet.labels import Modality
from brainunet.records import Case, Volume

Array: TypeAlias = npt.NDArray[Any]
Mask: TypeAlias = npt.NDArray[np.bool_]
Axes: TypeAlias = tuple[float | None, float | None, float | None]

AXES: Final = ("left-right", "back-front", "bottom-top")  # of the canonical orientation, RAS+
DEPTH_VOXELS: Final = 4  # how far inside the brain fineness is measured: its cut edge is sharp whatever the image is
FEWEST_VOXELS: Final = 1000  # a mean over fewer tells nothing


@dataclass(frozen=True)
class Refused:
    """What the reading functions refused, by the step that refused it."""

    unreadable: tuple[DataError, ...] = ()
    off_grid: tuple[DataError, ...] = ()
    label: tuple[DataError, ...] = ()
    empty: tuple[DataError, ...] = ()
    skull: tuple[tuple[Path, str], ...] = ()  # the file and the sign of a head


@dataclass(frozen=True, eq=False)
class Facts:
    """A case as the checks see it, cropped to the box of everything that is not 0.

    Where images can't be read, lie on different grids or hold nothing, ``images`` is empty, and the checks that look at images
    find nothing: the refusal is the finding.

    Attributes:
        case: whose files they are.
        refused: what ``preprocess.prepare`` would refuse it for.
        stored: how each file that could be read keeps its volume, by the file's kind (a modality, or "seg").
        images: (X, Y, Z) by modality, in the file's number type, canonical orientation.
        brain: (X, Y, Z), where any image is not 0.
        label: (X, Y, Z) in the numbers of ``labels.Label``; None where there is none or it is refused.
        box: where the crop lies in the whole volume.
        shape: of the whole volume.
        spacing_mm: sides of a voxel.
        tilt_degrees: the largest angle between an axis of the grid and the axis of the head that it stands for.
    """

    case: Case
    refused: Refused = field(default_factory=Refused)
    stored: Mapping[str, StoredAs] = field(default_factory=dict)
    images: Mapping[Modality, Array] = field(default_factory=dict)
    brain: Mask = field(default_factory=lambda: np.zeros((0, 0, 0), bool))
    label: npt.NDArray[np.uint8] | None = None
    box: Box = ((0, 0), (0, 0), (0, 0))
    shape: tuple[int, int, int] = (0, 0, 0)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    tilt_degrees: float = 0.0

    @cached_property
    def masks(self) -> Mapping[Modality, Mask]:
        """Where each image is not 0."""
        return MappingProxyType({modality: image != 0 for modality, image in self.images.items()})

    @cached_property
    def flat(self) -> Mapping[Modality, Mask]:
        """Where each image has the value of its next neighbour on all three axes: inside a brain noise forbids that.

        Its highest value is left out: where that is common, the image is clipped and not cut off.
        """
        return MappingProxyType({m: _flat(image) & self.masks[m] & (image != image.max()) for m, image in self.images.items()})

    @cached_property
    def others(self) -> Mapping[Modality, Mask]:
        """Where more than half of a modality's companions show brain, and it should too; for one alone, its own mask."""
        shown = sum((mask.astype(np.uint8) for mask in self.masks.values()), np.zeros(self.brain.shape, np.uint8))
        companions = len(self.masks) - 1
        if not companions:
            return self.masks
        return MappingProxyType({m: 2 * (shown - mask) > companions for m, mask in self.masks.items()})

    @cached_property
    def coarseness(self) -> Mapping[Modality, Axes]:
        """How smooth each image is along each axis: mean \\|step\\| over one voxel divided by that over four.

        0.25 is a straight slope over four voxels (blur, or slices thicker than the grid), 1 is pure noise. None where the
        brain is too small to tell. A ratio of two steps of one image depends on neither contrast nor scale.
        """
        inside = ndimage.binary_erosion(self.brain, iterations=DEPTH_VOXELS)
        return MappingProxyType({modality: _coarseness(image, inside) for modality, image in self.images.items()})

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of each image's brain, by modality: the same for the same numbers, however they are stored or cropped."""
        return MappingProxyType({modality.value: _digest(image) for modality, image in self.images.items()})


def read_facts(case: Case, modalities: Sequence[Modality]) -> Facts:
    """Read the files of a case; never raises for what is in them."""
    try:
        paths = files_of(case, modalities)
    except DataError as error:
        return Facts(case, Refused(unreadable=(error,)))
    kinds = [*(modality.value for modality in modalities), *(["seg"] if case.label else [])]
    volumes, unreadable = _read_all(paths)
    stored = {}
    for kind, path in zip(kinds, paths, strict=True):
        with suppress(DataError):  # told by the reading of the whole file
            stored[kind] = stored_as(path)
    off_grid = _off_grid(volumes)
    label, bad_label = _label(case, volumes, off_grid)
    if unreadable or any(path.name == error.where for path in paths[: len(modalities)] for error in off_grid):
        return Facts(case, Refused(unreadable, off_grid, bad_label), stored)
    images = [volumes[path] for path in paths[: len(modalities)]]
    masks = [volume.array != 0 for volume in images]
    try:
        brain = brain_of(case.case_id, masks)
    except DataError as error:
        return Facts(case, Refused(unreadable, off_grid, bad_label, (error,)), stored)
    signs = ((path, sign_of_a_head(mask, images[0].spacing_mm)) for path, mask in zip(paths, masks, strict=False))
    skull = tuple((path, sign) for path, sign in signs if sign is not None)
    box = bounding_box(brain if label is None else brain | (label > 0), 0)
    crop = tuple(slice(start, stop) for start, stop in box)
    return Facts(
        case=case,
        refused=Refused(unreadable, off_grid, bad_label, skull=skull),
        stored=stored,
        # copies, so that the whole volumes are released
        images={m: volume.array[crop].copy() for m, volume in zip(modalities, images, strict=True)},
        brain=brain[crop].copy(),
        label=None if label is None else label[crop].copy(),
        box=box,
        shape=(brain.shape[0], brain.shape[1], brain.shape[2]),
        spacing_mm=images[0].spacing_mm,
        tilt_degrees=_tilt_degrees(images[0]),
    )


def _read_all(paths: Iterable[Path]) -> tuple[dict[Path, Volume], tuple[DataError, ...]]:
    volumes, errors = {}, []
    for path in paths:
        try:
            volumes[path] = read_volume(path)
        except DataError as error:
            errors.append(error)
    return volumes, tuple(errors)


def _off_grid(volumes: Mapping[Path, Volume]) -> tuple[DataError, ...]:
    """Against the first that could be read, as ``prepare`` does."""
    errors = []
    first = next(iter(volumes.items()), None)
    for path, volume in volumes.items():
        try:
            if first is not None:
                require_grid(path, volume, *first)
        except DataError as error:
            errors.append(error)
    return tuple(errors)


def _label(
    case: Case, volumes: Mapping[Path, Volume], off_grid: Iterable[DataError]
) -> tuple[npt.NDArray[np.uint8] | None, tuple[DataError, ...]]:
    if case.label is None or case.label not in volumes:
        return None, ()
    try:
        label = read_label(case.label, volumes[case.label], case.convention)
    except DataError as error:
        return None, (error,)
    return (None if any(error.where == case.label.name for error in off_grid) else label), ()


def _tilt_degrees(volume: Volume) -> float:
    cosines = np.diag(volume.affine)[:3] / volume.spacing_mm  # canonical: each axis is nearest to the one of its number
    return float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1))))


def _flat(image: Array) -> Mask:
    flat = np.ones(image.shape, bool)
    for axis in range(3):
        along = np.moveaxis(image, axis, 0)
        here = np.moveaxis(flat, axis, 0)  # a view
        here[:-1] &= along[:-1] == along[1:]
        here[-1:] = False
    return flat


def _coarseness(image: Array, inside: Mask) -> Axes:
    def of(axis: int) -> float | None:
        along, deep = np.moveaxis(image, axis, 0), np.moveaxis(inside, axis, 0)
        if len(along) < 5:
            return None
        chosen = deep[2:-2]
        if np.count_nonzero(chosen) < FEWEST_VOXELS:
            return None
        back, here, on, ahead = (along[2 + step : len(along) - 2 + step][chosen].astype(np.float32) for step in (-2, 0, 1, 2))
        far = float(np.abs(ahead - back).mean(dtype=np.float64))
        return float(np.abs(on - here).mean(dtype=np.float64)) / far if far else None

    return (of(0), of(1), of(2))


def _digest(image: Array) -> str:
    box = bounding_box(image != 0, 0) if image.any() else ((0, 0),) * 3
    crop = np.ascontiguousarray(image[tuple(slice(start, stop) for start, stop in box)], np.float32)
    sha = hashlib.sha256(repr(crop.shape).encode())
    sha.update(crop.data.cast("B") if crop.size else b"")
    return sha.hexdigest()
