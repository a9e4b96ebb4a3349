"""Reading and writing NIfTI volumes by their affine: the home of nibabel.

Inside the project every volume lies in one canonical orientation, RAS+ (the closest axis permutation and flips, no
resampling). :func:`to_layout_of` is the exact way back to the orientation a file had.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brainunet.errors import GeometryMismatch, UnreadableVolume
from brainunet.files import writing_aside
from brainunet.records import Volume

MAX_VOXELS = 1024**3
GRID_TOLERANCE_MM = 1e-2


def read_volume(path: Path) -> Volume:
    """The volume in canonical orientation, with the file's own number type where it needs no scaling, else float32.

    The sform is used where its code is set, else the qform (NIfTI-1 standard, method 3 before method 2).

    Raises:
        UnreadableVolume: missing, no permission, 0 bytes, truncated, not NIfTI, not three axes, complex, NaN or infinite.
    """
    image = _open(path)
    _require_three_axes(path, image)
    array = nib.orientations.apply_orientation(_voxels(path, image), nib.orientations.io_orientation(image.affine))
    affine = image.affine @ nib.orientations.inv_ornt_aff(nib.orientations.io_orientation(image.affine), image.shape)
    return Volume(np.ascontiguousarray(array), np.asarray(affine, np.float64), _spacing_mm(path, affine))


def to_layout_of(path: Path, canonical: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array (X, Y, Z) in the canonical orientation, turned back to the voxel order of the file at ``path``.

    Raises:
        GeometryMismatch: the array's shape is not that of the file in canonical orientation.
    """
    image = _open(path)
    _require_three_axes(path, image)
    stored = nib.orientations.io_orientation(image.affine)
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), stored)
    turned: npt.NDArray[Any] = nib.orientations.apply_orientation(canonical, back)
    if turned.shape != image.shape:
        raise GeometryMismatch(path, found=f"shape {image.shape}", expected=f"shape {turned.shape}")
    return turned


def write_volume(path: Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
    """Write array (X, Y, Z) as .nii.gz with the affine as sform and qform, both codes 1 (scanner).

    The file appears under its name only when it is whole.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    # mtime=0: equal volumes give equal bytes; level 1: a tenth of the time for a few per cent of the size
    compressed = gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
    with writing_aside(path) as aside:
        aside.write_bytes(compressed)


def same_grid(a: Volume, b: Volume) -> bool:
    """Whether two volumes have one shape and place every voxel within a hundredth of a millimetre of each other."""
    if a.array.shape != b.array.shape:
        return False
    corner = np.append(np.array(a.array.shape, float) - 1, 1.0)
    ends = (np.array([0.0, 0.0, 0.0, 1.0]), corner)
    return all(bool(np.allclose(a.affine @ end, b.affine @ end, atol=GRID_TOLERANCE_MM)) for end in ends) and bool(
        np.allclose(a.affine[:3, :3], b.affine[:3, :3], atol=GRID_TOLERANCE_MM)
    )


def describe_grid(volume: Volume) -> str:
    """Shape, spacing and origin in words, for messages."""
    spacing = ", ".join(f"{side:.2f}" for side in volume.spacing_mm)
    origin = ", ".join(f"{x:.1f}" for x in volume.affine[:3, 3])
    return f"shape {volume.array.shape}, spacing ({spacing}) mm, origin ({origin}) mm"


def _open(path: Path) -> Any:
    expected = "a NIfTI volume (.nii or .nii.gz)"
    try:
        if path.stat().st_size == 0:
            raise UnreadableVolume(path, found="0 bytes", expected=expected, remedy="copy the file again from its source")
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        kind = nib.Nifti2Image if len(data) > 4 and data[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image
        return kind.from_stream(io.BytesIO(data))
    except PermissionError:
        raise UnreadableVolume(
            path, found="no permission to read it", expected=expected, remedy="ask for read access"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UnreadableVolume(
            path,
            found="a gzip stream that ends early or is damaged",
            expected=expected,
            remedy="copy the file again from its source",
        ) from None
    except OSError as error:
        raise UnreadableVolume(path, found=error.strerror or "a file that can't be read", expected=expected) from None
    except (nib.spatialimages.HeaderDataError, nib.filebasedimages.ImageFileError, ValueError):
        raise UnreadableVolume(path, found="a header that is not NIfTI", expected=expected) from None


def _require_three_axes(path: Path, image: Any) -> None:
    if len(image.shape) != 3:
        raise UnreadableVolume(
            path,
            found=f"{len(image.shape)} axes, shape {image.shape}",
            expected="one 3D volume per file",
            remedy="split a 4D file into one file per modality (Medical Decathlon: channels are FLAIR, T1w, T1gd, T2w)",
        )
    if min(image.shape) < 1 or int(np.prod([int(side) for side in image.shape])) > MAX_VOXELS:
        raise UnreadableVolume(path, found=f"shape {image.shape}", expected=f"between 1 and {MAX_VOXELS} voxels")


def _voxels(path: Path, image: Any) -> npt.NDArray[Any]:
    if image.get_data_dtype().kind not in "iuf":
        raise UnreadableVolume(path, found=f"voxels of type {image.get_data_dtype()}", expected="whole or real numbers")
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    scaled = (slope, intercept) != (1.0, 0.0)
    try:
        # unscaled integers stay as they are: exact, and an eighth of float64's memory
        array = np.asarray(image.dataobj) if not scaled else image.get_fdata(dtype=np.float32, caching="unchanged")
    except (OSError, ValueError, EOFError):
        raise UnreadableVolume(
            path,
            found="fewer voxels than its header promises",
            expected="a whole NIfTI volume",
            remedy="copy the file again from its source",
        ) from None
    if array.dtype.kind == "f":
        bad = int(array.size - np.isfinite(array).sum())
        if bad:
            raise UnreadableVolume(
                path,
                found=f"{bad} voxels that are NaN or infinite",
                expected="finite intensities",
                remedy="export the volume again",
            )
    return array


def _spacing_mm(path: Path, affine: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    finite = bool(np.isfinite(affine).all())
    sides = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)) if finite else np.zeros(3)
    if not finite or sides.min() <= 1e-3 or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UnreadableVolume(
            path, found="an affine that maps voxels to no place", expected="a sform or qform with axes of some length"
        )
    return (float(sides[0]), float(sides[1]), float(sides[2]))
