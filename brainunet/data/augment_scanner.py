"""What a scanner does to a head, for patches that are normalised already.

A prepared patch has mean 0 and standard deviation 1 in the brain, and a background of 0, which is the intensity of average
tissue. A real artefact came before all that: in the scanner air is darkest, the skull was stripped later, and the scan was
normalised last. :class:`AsScanned` goes that way back and forth around a TorchIO transform.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio
from torch import Tensor
from torch.nn import functional

FOOT_TO_HEAD = 2  # the axis of canonical volumes along which most clinical slices are stacked
_SMALLEST_SPREAD = 1e-6  # of a patch whose brain is one voxel, or constant


class AsScanned(tio.transforms.Transform):
    """A transform of intensities as an artefact of the scanner.

    Brain intensities are lifted until the lowest of each modality is 0, the level of the air around it; then comes the
    transform; then the background is 0 again, and each modality has the mean and the standard deviation in the brain that it
    had before, as normalisation would have given it. Brain is where any modality differs from 0.

    Args:
        inner: changes intensities only.
        p: probability.
        together: with one draw for all modalities; else each is a scan of its own and has a draw of its own.
        margin_voxels: the border is repeated so far outwards for the transform, where it would otherwise pull air into a patch
            that lies within the head.
    """

    def __init__(self, inner: tio.transforms.Transform, p: float, *, together: bool = False, margin_voxels: int = 0) -> None:
        super().__init__(p=p, copy=False)
        self.inner, self.together, self.margin = inner, together, margin_voxels

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        image = subject.image.data.float()
        brain = (image != 0).any(dim=0)
        if not brain.any():
            return subject
        means, spreads, lowest = _statistics(image, brain)
        raw = torch.where(brain, image - lowest, 0.0)
        if self.margin:
            raw = functional.pad(raw, (self.margin,) * 6, mode="replicate")
        parts = [raw] if self.together else list(raw.split(1))
        scanned = self.inner(tio.Subject({f"part{i}": tio.ScalarImage(tensor=part) for i, part in enumerate(parts)}))
        changed = torch.cat([scanned.get_image(f"part{i}").data.float() for i in range(len(parts))])
        if self.margin:
            within = slice(self.margin, -self.margin)
            changed = changed[:, within, within, within]
        new_means, new_spreads, _ = _statistics(changed, brain)
        gain = torch.where(new_spreads > _SMALLEST_SPREAD, spreads / new_spreads.clamp_min(_SMALLEST_SPREAD), 1.0)
        subject.image.set_data(torch.where(brain, (changed - new_means) * gain + means, 0.0))
        return subject


def _statistics(image: Tensor, brain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and lowest value of each modality (C, X, Y, Z) in the brain (X, Y, Z), each (C, 1, 1, 1)."""
    inside = image[:, brain].double()
    found = inside.mean(dim=1), inside.std(dim=1, correction=0), inside.amin(dim=1)
    return tuple(value.float().reshape(-1, 1, 1, 1) for value in found)  # type: ignore[return-value] # three of them


class ThickSlices(tio.transforms.Transform):
    """Slices thicker than their voxels: averaged over their thickness, then resampled linearly to the grid they came from.

    TorchIO's RandomAnisotropy keeps every n-th voxel instead, which is what slices with gaps would show, without the partial
    volume of thick ones. Where the first slice begins is drawn too. The segmentation stays: it was drawn on the resampled grid.
    The slices are stacked from foot to head; within them a voxel is as much larger along both axes.

    Args:
        through_plane: range of the slice's thickness, in voxels.
        in_plane: range of a voxel's side within the slice, in voxels.
    """

    def __init__(self, through_plane: tuple[float, float], in_plane: tuple[float, float]) -> None:
        super().__init__(p=1, copy=False)
        self.through_plane, self.in_plane = through_plane, in_plane

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        through, within = _between(*self.through_plane), _between(*self.in_plane)
        phases = torch.rand(3).tolist()
        for image in subject.get_images():
            data = image.data
            for axis, phase in enumerate(phases):
                size = through if axis == FOOT_TO_HEAD else within
                if size > 1:
                    data = _along(data, torch.from_numpy(slice_matrix(data.shape[axis + 1], size, phase)), axis + 1)
            image.set_data(data)
        return subject


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(1))


def slice_matrix(side: int, thickness: float, phase: float) -> npt.NDArray[np.float32]:
    """The matrix (side, side) that takes a row of voxels to what slices of a thickness show of it.

    >>> slice_matrix(4, 2.0, 0.0) @ [0, 2, 4, 6]  # slices of (0, 2) and (4, 6), whose middles lie between voxels
    array([1., 2., 4., 5.])

    Args:
        side: number of voxels.
        thickness: of a slice, in voxels, at least 1.
        phase: 0 to 1, the part of a slice by which the first one begins before the first voxel.
    """
    n_slices = int(np.ceil(side / thickness + phase))
    edges = (np.arange(n_slices + 1) - phase) * thickness
    voxels = np.arange(side)
    # how much of each voxel lies in each slice, (slices, voxels); only what lies in the row counts
    share = np.clip(np.minimum(edges[1:, None], voxels + 1) - np.maximum(edges[:-1, None], voxels), 0, None)
    kept = share.sum(axis=1) > 1e-6
    share, centres = share[kept], (edges[:-1] + thickness / 2)[kept]
    averaged = share / share.sum(axis=1, keepdims=True)
    back = np.stack([np.interp(voxels + 0.5, centres, row) for row in np.eye(len(centres))], axis=1)
    return np.asarray(back @ averaged, np.float32)


def _along(data: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """The matrix applied to every row of (C, X, Y, Z) along an axis."""
    return (data.movedim(axis, -1) @ matrix.T).movedim(-1, axis).contiguous()


class DropModalities(tio.transforms.Transform):
    """Modalities that are missing: 0 everywhere, the background of a prepared case. At least one is left."""

    def __init__(self, most: int, p: float) -> None:
        super().__init__(p=p, copy=False)
        self.most = most

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        data = subject.image.data
        most = min(self.most, len(data) - 1)
        if most:
            dropped = torch.randperm(len(data))[: int(torch.randint(1, most + 1, (1,)))]
            data[dropped] = 0
            subject.image.set_data(data)
        return subject
