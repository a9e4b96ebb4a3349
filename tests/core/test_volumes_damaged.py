"""Files that are broken, lie about themselves or are no volumes: one helpful sentence, and no memory lost."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.data.volumes import read_volume
from brainunet.errors import DataError, UnreadableVolume
from brainunet.records import Volume
from tests.support.cases import assert_helps
from tests.support.nifti import nifti

FloatArray = npt.NDArray[np.float64]
SHAPE = (3, 4, 5)


def numbered(dtype: str = "i2", shape: tuple[int, ...] = SHAPE) -> npt.NDArray[Any]:
    """An array no two voxels of which are alike."""
    return np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)


# --- bad files -------------------------------------------------------------------------------------------------------------

GOOD = nifti(np.random.default_rng(0).integers(0, 30000, (16, 16, 16)).astype(np.int16))
ZIPPED = gzip.compress(GOOD)
NOT_A_NUMBER = np.where(numbered("f4") == 7, np.nan, numbered("f4"))
SINGULAR = np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def damaged(at: float) -> bytes:
    place = int(len(ZIPPED) * at)
    return ZIPPED[:place] + bytes([ZIPPED[place] ^ 0xFF]) + ZIPPED[place + 1 :]


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "of 0 bytes": (b"", "0 bytes"),
    "of a few bytes": (GOOD[:100], "a header that is not NIfTI"),
    "of random bytes": (np.random.default_rng(1).bytes(5000), "a header that is not NIfTI"),
    "of text": (b"<!DOCTYPE html><title>Sign in</title>" * 20, "a header that is not NIfTI"),
    "of a gzip header only": (ZIPPED[:10], "ends early or is damaged"),
    "of random bytes, zipped": (gzip.compress(np.random.default_rng(1).bytes(5000)), "a header that is not NIfTI"),
    "that is a cut off .nii.gz": (ZIPPED[: len(ZIPPED) // 2], "ends early or is damaged"),
    "that lacks the checksum of its .gz": (ZIPPED[:-8], "ends early or is damaged"),
    "that is a damaged .nii.gz": (damaged(0.5), "ends early or is damaged"),
    "whose checksum is damaged": (damaged(0.9999), "ends early or is damaged"),
    "that is a cut off .nii": (GOOD[:3000], "fewer bytes than its header promises"),
    "that is cut off by one byte": (GOOD[:-1], "fewer bytes than its header promises"),
    "with 4 axes": (nifti(numbered(shape=(3, 3, 3, 4))), "4 axes, shape (3, 3, 3, 4)"),
    "with 2 axes": (nifti(numbered(shape=(3, 3))), "2 axes"),
    "with an empty axis": (nifti(numbered(), dim=(3, 3, 0, 5, 1, 1, 1, 1)), "shape (3, 0, 5)"),
    "with a negative axis": (nifti(numbered(), dim=(3, 3, -4, 5, 1, 1, 1, 1)), "shape (3, -4, 5)"),
    "with 9 axes": (nifti(numbered(), dim=(9, 3, 4, 5, 1, 1, 1, 1)), "a header that is not NIfTI"),
    "with NaN": (nifti(NOT_A_NUMBER), "1 voxels that are NaN"),
    "with infinity": (nifti(NOT_A_NUMBER * np.inf), "60 voxels that are NaN"),
    "with intensities no image has": (nifti(numbered("f8") * 1e200), "60 voxels that are NaN, infinite or beyond"),
    "scaled beyond all numbers": (nifti(numbered("f8") * 1e300, scl_slope=1e38), "60 voxels that are NaN"),
    "scaled by a slope without intercept": (nifti(numbered(), scl_slope=2, scl_inter=np.nan), "a header that is not NIfTI"),
    "of complex numbers": (nifti(numbered("c8")), "voxels of type complex64"),
    "of colours": (nifti(numbered("u1"), datatype=128, bitpix=24), "voxels of type RGB"),
    "of an unknown number type": (nifti(numbered(), datatype=999), "a header that is not NIfTI"),
    "with another magic": (nifti(numbered(), magic=b"n+9\0"), "a header that is not NIfTI"),
    "with a NaN in its sform": (nifti(numbered(), sform=np.full((4, 4), np.nan)), "maps voxels to no place"),
    "with an infinite sform": (nifti(numbered(), sform=np.diag([np.inf, 1, 1, 1])), "maps voxels to no place"),
    "with a huge sform": (nifti(numbered(), sform=np.diag([1e30, 1, 1, 1])), "maps voxels to no place"),
    "with two axes along one line": (nifti(numbered(), sform=SINGULAR), "maps voxels to no place"),
    "with an sform of zeros": (nifti(numbered(), sform=np.zeros((4, 4))), "maps voxels to no place"),
    "with a quaternion that is no rotation": (
        nifti(numbered(), qform=np.eye(4), quatern=(5.0, 5.0, 5.0)),
        "maps voxels to no place",
    ),
    "with a quaternion of NaN": (nifti(numbered(), qform=np.eye(4), quatern=[np.nan] * 3), "maps voxels to no place"),
    "with voxels at a place below the header": (nifti(numbered(), vox_offset=8), "a header that is not NIfTI"),
    "with voxels at byte 0": (nifti(numbered(), vox_offset=0), "voxels said to start at byte 0"),
    "with voxels at byte NaN": (nifti(numbered(), vox_offset=np.nan), "a header that is not NIfTI"),
    "with voxels at byte infinity": (nifti(numbered(), vox_offset=np.inf), "a header that is not NIfTI"),
    "with voxels far away": (nifti(numbered(), vox_offset=2e9), "voxels said to start at byte"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:tests")  # of making the file
def test_a_bad_file_becomes_one_helpful_sentence(kind: str, tmp_path: Path) -> None:
    data, found = BAD_FILES[kind]
    path = tmp_path / "BraTS-SSA-00002-000-t1c.nii.gz"
    path.write_bytes(data)

    with pytest.raises(UnreadableVolume) as raised:
        read_volume(path)

    assert_helps(raised.value, where=path.name, found=found, exit_code=3)


def test_a_file_that_is_missing_or_a_folder_is_named() -> None:
    for path, found in ((Path("no/such/x-t1c.nii"), "No such file"), (Path(__file__).parent, "directory")):
        with pytest.raises(UnreadableVolume) as raised:
            read_volume(path)

        assert_helps(raised.value, where=path.name, found=found, exit_code=3)


@given(data=st.data())
def test_no_damage_to_a_header_gets_past_as_another_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(nifti(numbered()))
    for place in data.draw(st.lists(st.integers(0, 351), min_size=1, max_size=6)):
        whole[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.nii"
    path.write_bytes(whole)

    try:
        volume = read_volume(path)
    except DataError:
        return
    assert volume.array.ndim == 3
    assert np.isfinite(volume.affine).all()


# --- files that lie about their size ------------------------------------------------------------------------------------

BIG = (3, 500, 500, 500, 1, 1, 1, 1)  # of float64: 1 GB
BIGGER = (3, 30000, 30000, 30000, 1, 1, 1, 1)


def zipped_zeros(header: bytes, gigabytes: float) -> bytes:
    """A gzip file of a header and zeros, made from one zipped megabyte repeated."""
    return gzip.compress(header) + gzip.compress(bytes(2**20), 1) * int(gigabytes * 1024)


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a small file that claims a gigabyte", nifti(numbered("f8"), dim=BIG), "fewer bytes"),
        ("a small zipped file that claims a gigabyte", gzip.compress(nifti(numbered("f8"), dim=BIG)), "fewer bytes"),
        ("a small file that claims the sky", nifti(numbered("f8"), dim=BIGGER), "shape (30000, 30000, 30000)"),
        ("a small volume followed by 8 GB of zeros", zipped_zeros(nifti(numbered()), 8), "many more bytes"),
        ("the sky, zipped", zipped_zeros(nifti(numbered("f8"), dim=BIGGER), 8), "shape (30000, 30000, 30000)"),
        ("8 GB of zeros", zipped_zeros(b"", 8), "a header that is not NIfTI"),
    ],
)
def test_a_file_that_lies_about_its_size_costs_no_memory(name: str, data: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb-t1c.nii.gz"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableVolume) as raised:
            read_volume(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert_helps(raised.value, where=path.name, found=found, exit_code=3)
    assert peak < 64 * 2**20, name


# --- grids ------------------------------------------------------------------------------------------------------------------


def volume(affine: FloatArray, shape: tuple[int, int, int] = (240, 240, 155)) -> Volume:
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    return Volume(np.broadcast_to(np.int16(0), shape), affine, (float(sides[0]), float(sides[1]), float(sides[2])))
