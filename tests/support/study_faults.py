"""A fault for each check of the data, and what comes near to it and is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from brainunet.labels import Modality
from tests.support.studies import LPS, Array, Study, add_skull

Fault: TypeAlias = Callable[[Study], None]


def _each(study: Study, change: Callable[[Array], Array], *which: Modality) -> None:
    for modality in which or tuple(study.images):
        study.images[modality] = change(study.images[modality])


def _truncated(study: Study) -> None:
    study.damage = lambda paths: paths["t2w"].write_bytes(paths["t2w"].read_bytes()[:-2000])


def _shifted_grid(mm: float) -> Fault:
    def fault(study: Study) -> None:
        affine = study.affine.copy()
        affine[0, 3] += mm
        study.headers["t2w"] = {"sform": affine}

    return fault


def _nothing_but(value: int, *which: Modality) -> Fault:
    return lambda study: _each(study, lambda image: np.where(image != 0, value, 0).astype(np.int16), *which)


def _one_voxel(value: int) -> Fault:
    def fault(study: Study) -> None:
        image = study.images[Modality.T1C]
        image[tuple(np.argwhere(image)[0])] = value

    return fault


def _clipped(percentile: float) -> Fault:
    def fault(study: Study) -> None:
        image = study.images[Modality.T1C]
        np.minimum(image, np.percentile(image[image != 0], percentile).astype(np.int16), out=image)

    return fault


def _cut_off(share: float) -> Fault:
    def fault(study: Study) -> None:
        where = np.argwhere(study.brain)[:, 0]
        study.images[Modality.T1C][: int(np.quantile(where, share))] = 0

    return fault


def _moved(voxels: int) -> Fault:
    return lambda study: _each(study, lambda image: np.roll(image, voxels, axis=0), Modality.T2W)


def _blurred(voxels: float) -> Fault:
    def fault(study: Study) -> None:
        brain = study.brain
        _each(
            study,
            lambda image: np.where(
                brain, np.maximum(np.rint(ndimage.gaussian_filter(image.astype(float), voxels)), 1), 0
            ).astype(np.int16),
            Modality.T1C,
        )

    return fault


def _voxels_of(mm: float) -> Fault:
    def fault(study: Study) -> None:
        study.affine = LPS @ np.diag([1, 1, mm, 1])

    return fault


def _tilted(degrees: float) -> Fault:
    def fault(study: Study) -> None:
        study.affine[:3, :3] = Rotation.from_euler("x", degrees, degrees=True).as_matrix() @ LPS[:3, :3]

    return fault


def _mirrored_storage(study: Study) -> None:
    """The same image in the same place, with its first axis stored the other way round."""
    affine = study.affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = study.affine[:3] @ [study.brain.shape[0] - 1, 0, 0, 1]
    _each(study, lambda image: image[::-1].copy(), Modality.T2W)
    study.headers["t2w"] = {"sform": affine}


def _typed(dtype: str) -> Fault:
    def fault(study: Study) -> None:
        _each(study, lambda image: (image / image.max() * 127).astype(dtype) if dtype == "u1" else image.astype(dtype))

    return fault


def _with_label(value: int, at: tuple[int, int, int] | None) -> Fault:
    def fault(study: Study) -> None:
        assert study.label is not None
        place = tuple(np.argwhere(study.label)[0]) if at is None else at
        study.label[place] = value

    return fault


def _label_outside(side: int) -> Fault:
    def fault(study: Study) -> None:
        assert study.label is not None
        study.label[:side, :side, :side] = 2

    return fault


def _unsegmented(study: Study) -> None:
    study.label = None


def _no_enhancing(study: Study) -> None:
    assert study.label is not None
    study.label[study.label == 3] = 1


def _thick(voxels: int) -> Fault:
    def thick(image: Array) -> Array:
        first = np.arange(image.shape[2]) // voxels * voxels
        return image[:, :, first]

    def fault(study: Study) -> None:
        brain = thick(study.brain)
        _each(study, lambda image: np.where(brain & (thick(image) == 0), 1, thick(image)).astype(np.int16))
        assert study.label is not None
        study.label = thick(study.label)

    return fault


def _copied(extra: int) -> Fault:
    def fault(study: Study) -> None:
        copy = study.images[Modality.T1C].copy()
        copy[tuple(np.argwhere(copy)[0])] += extra
        study.images[Modality.T2W] = copy

    return fault


def _tight_box(study: Study) -> None:
    """A volume cropped to its brain, which then touches all six faces."""
    crop = tuple(slice(*(np.flatnonzero(study.brain.any(axis=axes))[[0, -1]] + (0, 1))) for axes in ((1, 2), (0, 2), (0, 1)))
    _each(study, lambda image: image[crop].copy())
    assert study.label is not None
    study.label = study.label[crop].copy()


def _as_it_is(study: Study) -> None:
    pass


FIRING: Final[Mapping[str, Fault]] = {
    "readable": _truncated,
    "grid": _shifted_grid(0.5),
    "empty": lambda study: _each(study, np.zeros_like),
    "constant": _nothing_but(100, Modality.T1C),
    "labels": _with_label(4, None),
    "skull": lambda study: add_skull(study, noise=4),
    "copied": _copied(0),
    "clipped": _clipped(99),
    "cut off": _cut_off(0.05),
    "registration": _moved(4),
    "blur": _blurred(1.5),
    "spacing": _voxels_of(1.5),
    "tilt": _tilted(15),
    "orientation": _mirrored_storage,
    "number type": _typed("u1"),
    "labels outside": _label_outside(4),
    "unsegmented": _unsegmented,
    "absent labels": _no_enhancing,
    "negative": _one_voxel(-290),
    "thick slices": _thick(4),
}

# What comes near to the fault and is none.
NEARLY: Final[Mapping[str, Fault]] = {
    "readable": _as_it_is,
    "grid": _shifted_grid(0.005),
    "empty": _one_voxel(100),
    "constant": _clipped(60),
    "labels": _with_label(3, None),
    "skull": _tight_box,
    "copied": _copied(1),
    "clipped": _clipped(99.95),
    "cut off": _cut_off(0.01),
    "registration": _moved(1),
    "blur": _blurred(0.3),
    "spacing": _voxels_of(1.15),
    "tilt": _tilted(8),
    "orientation": _as_it_is,
    "number type": _typed("f4"),
    "labels outside": _with_label(2, None),
    "unsegmented": _no_enhancing,
    "absent labels": _as_it_is,
    "negative": _one_voxel(1),
    "thick slices": _thick(1),
}
