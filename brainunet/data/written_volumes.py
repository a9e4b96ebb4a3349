"""Writing NIfTI volumes: whole or not at all, in a geometry of their own or exactly in that of another file."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainunet.data.volumes import header_and_affine
from brainunet.errors import GeometryMismatch
from brainunet.files import writing_aside

_GEOMETRY = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def write_volume(path: Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64], *, description: str = "") -> None:
    """Write array (X, Y, Z) as .nii.gz with the affine as sform and qform, both codes 1 (scanner).

    The file appears under its name only when it is whole.

    Args:
        description: for the header, up to 80 letters of ASCII.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description
    # mtime=0: equal volumes give equal bytes; level 1: a tenth of the time for a few per cent of the size
    compressed = gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
    with writing_aside(path) as aside:
        aside.write_bytes(compressed)


def write_volume_like(path: Path, like: Path, canonical: npt.NDArray[Any], *, description: str = "") -> None:
    """Write an array in canonical orientation with exactly the geometry of the file ``like``: voxel order, both forms, codes.

    Nothing else of that header is copied: it may hold a patient's name.

    Args:
        canonical: (X, Y, Z).
        description: for the header, up to 80 letters of ASCII.

    Raises:
        GeometryMismatch: the array's shape is not that of ``like`` in canonical orientation.
        UnreadableVolume: ``like`` is not what it was when it was read.
        BrainUNetError: the disk is full or the folder can't be written.
    """
    _write_like(path, like, [canonical], canonical.dtype, (), description)


def write_volumes_like(path: Path, like: Path, canonical: Iterable[npt.NDArray[Any]], n: int, *, description: str = "") -> None:
    """As :func:`write_volume_like`, of ``n`` float32 values in each voxel: arrays (X, Y, Z), made when their turn comes.

    Raises:
        GeometryMismatch, UnreadableVolume, BrainUNetError: as there.
    """
    _write_like(path, like, canonical, np.dtype(np.float32), (n,), description)


def _write_like(
    path: Path, like: Path, volumes: Iterable[npt.NDArray[Any]], dtype: np.dtype[Any], more: tuple[int, ...], description: str
) -> None:
    source, _ = header_and_affine(like)
    header = (nib.Nifti2Header if source["sizeof_hdr"] == 540 else nib.Nifti1Header)()
    header.set_data_dtype(dtype)
    header.set_data_shape((*source.get_data_shape(), *more))
    for field in _GEOMETRY:
        header[field] = source[field]
    header["pixdim"][:4] = source["pixdim"][:4]
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["descrip"] = description
    # plane by plane: a fine volume in one piece of bytes, and again zipped, would need memory that not every PC has
    with (
        writing_aside(path) as aside,
        aside.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as zipped,  # level and time as in write_volume
    ):
        header.write_to(zipped)
        for volume in volumes:
            turned = to_layout_of(like, volume)
            for z in range(turned.shape[2]):
                zipped.write(turned[:, :, z].tobytes(order="F"))


def to_layout_of(path: Path, canonical: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array (X, Y, Z) in the canonical orientation, turned back to the voxel order of the file at ``path``.

    Raises:
        GeometryMismatch: the array's shape is not that of the file in canonical orientation.
        UnreadableVolume: the file is not what it was when it was read.
    """
    header, affine = header_and_affine(path)
    stored = nib.orientations.io_orientation(affine)
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), stored)
    turned: npt.NDArray[Any] = nib.orientations.apply_orientation(canonical, back)
    if turned.shape != header.get_data_shape():
        raise GeometryMismatch(
            path,
            found=f"shape {header.get_data_shape()}",
            expected=f"shape {turned.shape}",
            remedy="use the file that the array was made from",
        )
    return turned
