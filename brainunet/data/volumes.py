"""Reading NIfTI volumes by their affine: the home of nibabel, with ``written_volumes``.

Inside the project every volume lies in one canonical orientation, RAS+ (the closest axis permutation and flips, no
resampling). The exact way back to the orientation a file had is ``written_volumes.to_layout_of``.
"""

from __future__ import annotations

import gzip
import itertools
import math
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainunet.errors import UnreadableVolume
from brainunet.records import Volume

MAX_VOXELS = 512**3
MAX_EXTRA_BYTES = 2**24  # before the voxels (header extensions) and after them (padding)
MAX_INTENSITY = 1e30  # squares of it still fit a float64
GRID_TOLERANCE_MM = 1e-2

_EXPECTED = "a NIfTI volume (.nii or .nii.gz)"
_COPY_AGAIN = "copy the file again from its source"
_EXPORT_AGAIN = "export the volume again"
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}  # by their length in bytes, which is also their first number


def read_volume(path: Path) -> Volume:
    """The volume in canonical orientation, with the file's own number type where it needs no scaling, else float32.

    The sform is used where its code is set, else the qform (NIfTI-1 standard, method 3 before method 2).

    Raises:
        UnreadableVolume: missing, no permission, 0 bytes, truncated, not NIfTI, not three axes, complex, NaN or infinite.
    """
    header, data = _read(path)
    affine = _affine(path, header)
    stored = nib.orientations.io_orientation(affine)
    array = nib.orientations.apply_orientation(_voxels(path, header, data), stored)
    affine = affine @ nib.orientations.inv_ornt_aff(stored, header.get_data_shape())
    return Volume(np.array(array, order="C"), affine, spacing_of(affine))


def spacing_of(affine: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """The sides of a voxel in mm, along the axes that (4, 4) is for.

    >>> spacing_of(np.diag([-1.0, 1.0, 5.0, 1.0]))
    (1.0, 1.0, 5.0)
    """
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


@dataclass(frozen=True)
class StoredAs:
    """How a file keeps its volume.

    Attributes:
        number_type: numpy's name of it, such as "int16"; of the stored numbers, before any scaling.
        ceiling: the largest intensity that the file could hold, as :func:`read_volume` would give it; None for real numbers.
        axes: where each axis of the file runs to, such as "LPS".
        forms_apart_mm: how far qform and sform place one voxel from each other at most; None where only one of them is set.
    """

    number_type: str
    ceiling: float | None
    axes: str
    forms_apart_mm: float | None


def stored_as(path: Path) -> StoredAs:
    """What the header alone says; reads no voxel.

    Raises:
        UnreadableVolume: as for :func:`read_volume`, of the header.
    """
    header, _ = _read(path, with_voxels=False)
    affine = _affine(path, header)
    apart: float | None = None
    with np.errstate(all="ignore"), suppress(nib.spatialimages.HeaderDataError, ValueError):  # the form that is used was sound
        qform, sform = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
        if qform is not None and sform is not None:
            apart = _apart_mm(header.get_data_shape(), qform, sform)
            apart = apart if math.isfinite(apart) else None
    return StoredAs(header.get_data_dtype().name, _ceiling(header), "".join(nib.orientations.aff2axcodes(affine)), apart)


def description_of(path: Path) -> str:
    """The free text in the header, at most 80 letters; what is not ASCII in it is replaced.

    Raises:
        UnreadableVolume: as for :func:`read_volume`, of the header.
    """
    header, _ = _read(path, with_voxels=False)
    return bytes(header["descrip"].item()).decode("ascii", errors="replace").rstrip("\0 ")


def _ceiling(header: Any) -> float | None:
    dtype = header.get_data_dtype()
    if dtype.kind not in "iu":
        return None
    ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    return float(_scaled(ends, *header.get_slope_inter()).max())


def header_and_affine(path: Path) -> tuple[Any, npt.NDArray[np.float64]]:
    """The header of a file, checked, and where it puts its voxels; reads no voxel.

    Raises:
        UnreadableVolume: as for :func:`read_volume`, of the header.
    """
    header, _ = _read(path, with_voxels=False)
    return header, _affine(path, header)


def same_grid(a: Volume, b: Volume) -> bool:
    """Whether two volumes have one shape and place every voxel within a hundredth of a millimetre of each other."""
    if a.array.shape != b.array.shape:
        return False
    return _apart_mm(a.array.shape, a.affine, b.affine) <= GRID_TOLERANCE_MM


def _apart_mm(shape: tuple[int, ...], a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """How far two affines place a voxel from each other at most."""
    # the distance is a convex function of the voxel, so it is largest at one of the eight corners
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, side - 1) for side in shape))])
    return float(np.linalg.norm(corners @ (a - b)[:3].T, axis=1).max())


def describe_grid(volume: Volume) -> str:
    """Shape, spacing and the places of the first and last voxel in words, for messages."""
    spacing = ", ".join(f"{side:.2f}" for side in volume.spacing_mm)
    ends = [volume.affine @ (*voxel, 1) for voxel in ((0, 0, 0), np.array(volume.array.shape) - 1)]
    first, last = (", ".join(f"{x:.2f}" for x in end[:3]) for end in ends)
    return f"shape {volume.array.shape}, spacing ({spacing}) mm, voxels from ({first}) to ({last}) mm"


def _read(path: Path, *, with_voxels: bool = True) -> tuple[Any, memoryview]:
    """The checked header, and the bytes of the voxels: never more than the header promises, whatever the file unpacks to."""
    try:
        if path.stat().st_size == 0:
            raise UnreadableVolume(path, found="0 bytes", expected=_EXPECTED, remedy=_COPY_AGAIN)
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not zipped:
                return _parse(path, file, with_voxels)
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _parse(path, unzipped, with_voxels)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UnreadableVolume(
            path, found="a gzip stream that ends early or is damaged", expected=_EXPECTED, remedy=_COPY_AGAIN
        ) from None
    except OSError as error:
        raise UnreadableVolume(
            path,
            found=error.strerror or "a file that can't be read",
            expected=_EXPECTED,
            remedy="check that it is there and that you may read it",
        ) from None


def _parse(path: Path, stream: IO[bytes] | gzip.GzipFile, with_voxels: bool) -> tuple[Any, memoryview]:
    start = stream.read(min(_HEADERS))
    length = next((n for n in _HEADERS for order in ("little", "big") if start[:4] == n.to_bytes(4, order)), 0)
    start += stream.read(max(0, length - len(start)))
    try:
        if not length or len(start) < length:
            raise ValueError("no header")
        header = _HEADERS[length](start)
        shape, offset = header.get_data_shape(), header.get_data_offset()
        header.get_slope_inter()
    except (nib.spatialimages.HeaderDataError, ValueError, OverflowError):
        raise UnreadableVolume(path, found="a header that is not NIfTI", expected=_EXPECTED, remedy=_COPY_AGAIN) from None
    _require_three_axes(path, shape)
    _require_numbers(path, header)
    if not length <= offset <= MAX_EXTRA_BYTES:
        raise UnreadableVolume(path, found=f"voxels said to start at byte {offset}", expected=_EXPECTED, remedy=_COPY_AGAIN)
    if not with_voxels:
        return header, memoryview(b"")
    promised = offset - length + math.prod(shape) * header.get_data_dtype().itemsize
    data = _at_most(stream, promised + MAX_EXTRA_BYTES + 1)
    if not promised <= len(data) <= promised + MAX_EXTRA_BYTES:
        few = "fewer" if len(data) < promised else "many more"
        raise UnreadableVolume(
            path, found=f"{few} bytes than its header promises", expected="a whole NIfTI volume", remedy=_COPY_AGAIN
        )
    return header, memoryview(data)[offset - length : promised]


def _at_most(stream: IO[bytes] | gzip.GzipFile, limit: int) -> bytearray:
    """Up to ``limit`` bytes, in pieces: a file that lies about its size costs no memory that it does not fill."""
    data = bytearray()
    while piece := stream.read(min(2**20, limit - len(data))):
        data += piece
    return data


def _require_three_axes(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise UnreadableVolume(
            path,
            found=f"{len(shape)} axes, shape {shape}",
            expected="one 3D volume per file",
            remedy="split a 4D file into one file per modality (Medical Decathlon: channels are FLAIR, T1w, T1gd, T2w)",
        )
    if min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise UnreadableVolume(path, found=f"shape {shape}", expected=f"1 to {MAX_VOXELS} voxels", remedy=_EXPORT_AGAIN)


def _require_numbers(path: Path, header: Any) -> None:
    if header.get_data_dtype().kind not in "iuf":
        raise UnreadableVolume(
            path,
            found=f"voxels of type {header.get_value_label('datatype')}",
            expected="whole or real numbers",
            remedy="export the volume with one number per voxel",
        )


def _voxels(path: Path, header: Any, data: memoryview) -> npt.NDArray[Any]:
    dtype = header.get_data_dtype()
    # unscaled integers stay as they are: exact, and an eighth of float64's memory
    array = np.frombuffer(data, dtype).reshape(header.get_data_shape(), order="F").astype(dtype.newbyteorder("="), copy=False)
    array = _scaled(array, *header.get_slope_inter())
    if array.dtype.kind == "f" and (bad := _beyond(array)):
        raise UnreadableVolume(
            path,
            found=f"{bad} voxels that are NaN, infinite or beyond {MAX_INTENSITY:g}",
            expected="finite intensities",
            remedy=_EXPORT_AGAIN,
        )
    return array


def _beyond(array: npt.NDArray[np.floating]) -> int:
    """Voxels that are no number or too large a one, counted plane by plane to save memory."""
    return sum(array[..., z].size - int((np.abs(array[..., z]) <= MAX_INTENSITY).sum()) for z in range(array.shape[-1]))


def _scaled(array: npt.NDArray[Any], slope: float | None, intercept: float | None) -> npt.NDArray[Any]:
    if (slope, intercept) in ((None, None), (1.0, 0.0)):
        return array
    made = np.empty(array.shape, np.float32, order="F")
    with np.errstate(over="ignore", invalid="ignore"):
        for z in range(array.shape[-1]):  # in float64, but never more than a plane of it
            made[..., z] = array[..., z] * np.float64(slope or 0.0) + np.float64(intercept or 0.0)
    return made


def _affine(path: Path, header: Any) -> npt.NDArray[np.float64]:
    """Voxel to millimetre (4, 4), of a header whose axes have some length and are three."""
    try:
        with np.errstate(all="ignore"):
            affine = np.asarray(header.get_best_affine(), np.float64)
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        sound = np.abs(affine).max() < 1e6 and sides.min() > 1e-3 and abs(np.linalg.det(affine[:3, :3] / sides)) > 1e-6
    except (nib.spatialimages.HeaderDataError, ValueError):
        sound = False
    if not sound:
        raise UnreadableVolume(
            path,
            found="an affine that maps voxels to no place",
            expected="a sform or qform with three axes of some length",
            remedy=_EXPORT_AGAIN,
        )
    return affine
