"""NIfTI-1 files made from the standard's table of bytes, so that no test reads with the library that wrote.

https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

FloatArray = npt.NDArray[np.float64]

# Field -> what it is to `struct`, and where it starts.
FIELDS: Final[dict[str, tuple[str, int]]] = {
    "sizeof_hdr": ("i", 0),
    "dim": ("8h", 40),
    "datatype": ("h", 70),
    "bitpix": ("h", 72),
    "pixdim": ("8f", 76),
    "vox_offset": ("f", 108),
    "scl_slope": ("f", 112),
    "scl_inter": ("f", 116),
    "xyzt_units": ("b", 123),
    "qform_code": ("h", 252),
    "sform_code": ("h", 254),
    "quatern": ("3f", 256),
    "qoffset": ("3f", 268),
    "srow": ("12f", 280),
    "magic": ("4s", 344),
}
DATATYPES: Final = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "c8": 32, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024}


def nifti(
    array: npt.NDArray[Any],
    *,
    sform: FloatArray | None = None,
    qform: FloatArray | None = None,
    codes: tuple[int, int] | None = None,
    big_endian: bool = False,
    **fields: Any,
) -> bytes:
    """An uncompressed file of ``array``; ``codes`` are those of sform and qform, ``fields`` replace what would be written."""
    if sform is None and qform is None:
        sform = np.eye(4)
    order: Literal[">", "<"] = ">" if big_endian else "<"
    sform_code, qform_code = codes if codes is not None else (int(sform is not None), int(qform is not None))
    sides = np.linalg.norm((sform if qform is None else qform)[:3, :3], axis=0)  # type: ignore[index]
    handedness, quaternion = _quaternion(np.eye(4) if qform is None else qform)
    values = {
        "sizeof_hdr": 348,
        "dim": (array.ndim, *array.shape, *([1] * (7 - array.ndim))),
        "datatype": DATATYPES[array.dtype.str[1:]],
        "bitpix": 8 * array.dtype.itemsize,
        "pixdim": (handedness, *sides, 0, 0, 0, 0),
        "vox_offset": 352,
        "scl_slope": 1.0,
        "xyzt_units": 2,
        "qform_code": qform_code,
        "sform_code": sform_code,
        "quatern": quaternion,
        "qoffset": (np.zeros(3) if qform is None else qform[:3, 3]),
        "srow": (np.zeros(12) if sform is None else sform[:3].ravel()),
        "magic": b"n+1\0",
        **fields,
    }
    header = bytearray(352)
    for name, value in values.items():
        kind, start = FIELDS[name]
        struct.pack_into(order + kind, header, start, *(value if np.ndim(value) else [value]))
    return bytes(header) + array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")


def write_nifti(path: Path, array: npt.NDArray[Any], **header: Any) -> Path:
    """The file of :func:`nifti` under ``path``, zipped if that ends in .gz."""
    data = nifti(array, **header)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 1, mtime=0) if path.suffix == ".gz" else data)
    return path


def _quaternion(affine: FloatArray) -> tuple[int, FloatArray]:
    """The sign qfac and the quaternion's b, c, d of a rotation with flips and sides."""
    turn = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    handedness = 1 if np.linalg.det(turn) > 0 else -1
    turn[:, 2] *= handedness
    b, c, d, a = Rotation.from_matrix(turn).as_quat()
    return handedness, np.array([b, c, d]) * (1 if a >= 0 else -1)
