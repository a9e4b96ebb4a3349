"""Any NIfTI file of a brain becomes the same array, and what is written is read by all."""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from brainunet.data.volumes import describe_grid, read_volume, same_grid
from brainunet.data.written_volumes import to_layout_of, write_volume
from brainunet.errors import GeometryMismatch
from brainunet.records import Volume
from tests.support.cases import assert_helps
from tests.support.nifti import DATATYPES, nifti, write_nifti

FloatArray = npt.NDArray[np.float64]
SHAPE = (3, 4, 5)
CANONICAL = np.array([[1.0, 0, 0, -7], [0, 1.5, 0, -9], [0, 0, 2, 11], [0, 0, 0, 1]])
ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)
]


def numbered(dtype: str = "i2", shape: tuple[int, ...] = SHAPE) -> npt.NDArray[Any]:
    """An array no two voxels of which are alike."""
    return np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)


def stored_as(
    array: npt.NDArray[Any], affine: FloatArray, order: tuple[int, ...], flips: tuple[bool, ...]
) -> tuple[npt.NDArray[Any], FloatArray]:
    """The same places with the axes in another order and direction: array and affine of such a file."""
    turned, matrix, origin = array.transpose(order), affine[:3, :3][:, order].copy(), affine[:3, 3].copy()
    for axis in range(3):
        if flips[axis]:
            origin += matrix[:, axis] * (turned.shape[axis] - 1)
            matrix[:, axis] *= -1
            turned = np.flip(turned, axis)
    return turned, np.vstack([np.column_stack([matrix, origin]), [0, 0, 0, 1]])


def oblique(degrees: float) -> FloatArray:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [degrees, -degrees / 2, degrees / 3], degrees=True).as_matrix()
    return np.asarray(turn @ CANONICAL)


@pytest.mark.parametrize("degrees", [0, 12])
@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_each_of_the_48_orientations_gives_the_same_canonical_array(
    order: tuple[int, ...], flips: tuple[bool, ...], degrees: float, tmp_path: Path
) -> None:
    affine = oblique(degrees)
    array, stored = stored_as(numbered(), affine, order, flips)
    path = write_nifti(tmp_path / "x.nii", array, sform=stored)

    volume = read_volume(path)

    assert np.array_equal(volume.array, numbered())
    assert volume.array.flags.c_contiguous
    assert volume.array.flags.writeable
    assert volume.affine == pytest.approx(affine, abs=1e-4)
    assert volume.spacing_mm == pytest.approx((1.0, 1.5, 2.0), abs=1e-5)
    assert np.array_equal(to_layout_of(path, volume.array), array)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS[::5])
def test_a_qform_alone_places_a_volume_as_its_sform_would(
    order: tuple[int, ...], flips: tuple[bool, ...], tmp_path: Path
) -> None:
    array, affine = stored_as(numbered(), oblique(7), order, flips)
    by_sform = read_volume(write_nifti(tmp_path / "s.nii.gz", array, sform=affine))
    by_qform = read_volume(write_nifti(tmp_path / "q.nii.gz", array, qform=affine))

    assert np.array_equal(by_qform.array, by_sform.array)
    assert same_grid(by_qform, by_sform)


@pytest.mark.parametrize(("codes", "wins"), [((1, 1), 1), ((4, 1), 1), ((0, 1), 2), ((0, 4), 2)])
def test_of_two_placements_the_code_decides_and_the_sform_comes_first(
    codes: tuple[int, int], wins: int, tmp_path: Path
) -> None:
    sform, qform = np.diag([1.0, 1, 1, 1]), np.diag([2.0, 2, 2, 1])
    path = write_nifti(tmp_path / "x.nii", numbered(), sform=sform, qform=qform, codes=codes)

    assert read_volume(path).spacing_mm == (wins, wins, wins)


def test_without_any_placement_the_sides_of_the_voxels_still_count(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "x.nii", numbered(), qform=np.diag([1.0, 2, 3, 1]), codes=(0, 0))

    assert read_volume(path).spacing_mm == (1, 2, 3)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("dtype", sorted(set(DATATYPES) - {"c8"}))
def test_every_number_type_keeps_its_values_and_its_type(dtype: str, big_endian: bool, tmp_path: Path) -> None:
    array = numbered(dtype)
    array[0, 0, 0] = np.iinfo(dtype).max if array.dtype.kind in "iu" else -0.125

    read = read_volume(write_nifti(tmp_path / "x.nii", array, big_endian=big_endian)).array

    assert read.dtype == np.dtype(dtype)
    assert np.array_equal(read, array)


def test_scaled_integers_become_what_they_stand_for(tmp_path: Path) -> None:
    read = read_volume(write_nifti(tmp_path / "x.nii", numbered("i2"), scl_slope=0.5, scl_inter=-3.0)).array

    assert read.dtype == np.float32
    assert np.array_equal(read, numbered("f8") * 0.5 - 3)


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_a_slope_without_meaning_is_no_scaling(slope: float, tmp_path: Path) -> None:
    assert np.array_equal(read_volume(write_nifti(tmp_path / "x.nii", numbered(), scl_slope=slope)).array, numbered())


def test_a_file_is_read_by_its_content_not_by_its_ending(tmp_path: Path) -> None:
    (tmp_path / "plain.nii.gz").write_bytes(nifti(numbered()))
    (tmp_path / "zipped.nii").write_bytes(gzip.compress(nifti(numbered())))

    for path in tmp_path.iterdir():
        assert np.array_equal(read_volume(path).array, numbered())


def test_a_gzip_file_of_several_streams_is_one_volume(tmp_path: Path) -> None:
    data = nifti(numbered())
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]))

    assert np.array_equal(read_volume(tmp_path / "x.nii.gz").array, numbered())


def test_header_extensions_and_padding_are_stepped_over(tmp_path: Path) -> None:
    plain = nifti(numbered(), vox_offset=352 + 64)
    (tmp_path / "x.nii").write_bytes(plain[:348] + b"\1\0\0\0" + b"\xff" * 64 + plain[352:] + bytes(100))

    assert np.array_equal(read_volume(tmp_path / "x.nii").array, numbered())


# --- grids ------------------------------------------------------------------------------------------------------------------


def volume(affine: FloatArray, shape: tuple[int, int, int] = (240, 240, 155)) -> Volume:
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    return Volume(np.broadcast_to(np.int16(0), shape), affine, (float(sides[0]), float(sides[1]), float(sides[2])))


@given(st.lists(st.floats(-0.0001, 0.0001), min_size=12, max_size=12))
def test_grids_are_one_exactly_when_no_voxel_is_a_hundredth_of_a_millimetre_apart(errors: list[float]) -> None:
    other = CANONICAL.copy()
    other[:3] += np.reshape(errors, (3, 4))
    voxels = np.indices((13, 13, 13)).reshape(3, -1).T * (239 / 12, 239 / 12, 154 / 12)
    apart = np.linalg.norm(voxels @ (other - CANONICAL)[:3, :3].T + (other - CANONICAL)[:3, 3], axis=1).max()

    assert same_grid(volume(CANONICAL), volume(other)) == (apart <= 0.01)


def test_a_twist_that_leaves_both_ends_in_place_is_another_grid() -> None:
    twist = CANONICAL.copy()
    twist[0, :2] += (0.009, -0.009)  # 2 mm at one corner, nothing at the first and the last voxel

    assert not same_grid(volume(CANONICAL, (240, 240, 1)), volume(twist, (240, 240, 1)))


def test_another_shape_is_another_grid() -> None:
    assert not same_grid(volume(CANONICAL), volume(CANONICAL, (240, 240, 154)))


def test_grids_that_differ_in_their_direction_alone_are_described_differently() -> None:
    assert describe_grid(volume(CANONICAL)) != describe_grid(volume(oblique(1)))


# --- writing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS[::7])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
def test_what_is_written_reads_back_and_is_placed_by_both_forms(
    dtype: str, order: tuple[int, ...], flips: tuple[bool, ...], tmp_path: Path
) -> None:
    array, affine = stored_as(numbered(dtype), oblique(20), order, flips)
    path = tmp_path / "new" / "x.nii.gz"

    write_volume(path, array, affine)

    header = gzip.decompress(path.read_bytes())[:352]
    assert struct.unpack_from("<2h", header, 252) == (1, 1)
    assert struct.unpack_from("<b", header, 123) == (2,)  # millimetres
    assert np.array_equal(read_volume(path).array, numbered(dtype))
    assert np.array_equal(to_layout_of(path, read_volume(path).array), array)


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
def test_another_library_sees_the_same_values_at_the_same_places(dtype: str, tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    array, affine = stored_as(numbered(dtype), oblique(20), (2, 0, 1), (True, False, True))
    write_volume(tmp_path / "x.nii.gz", array, affine)

    image = sitk.ReadImage(str(tmp_path / "x.nii.gz"))

    assert np.array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), array)  # it counts z, y, x
    for voxel in itertools.product((0, 2), repeat=3):
        left_posterior = image.TransformIndexToPhysicalPoint(voxel)
        assert (affine @ (*voxel, 1))[:3] == pytest.approx(np.array(left_posterior) * (-1, -1, 1), abs=1e-4)


def test_another_library_and_ours_agree_on_a_file_that_it_wrote(tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(numbered().transpose(2, 1, 0))
    image.SetSpacing((1.0, 1.5, 2.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    sitk.WriteImage(image, str(tmp_path / "x.nii.gz"))

    read = read_volume(tmp_path / "x.nii.gz")

    assert np.array_equal(read.array, numbered()[::-1, ::-1])  # from left-posterior-superior to right-anterior-superior
    assert read.affine[:3, 3] == pytest.approx((-10 - 2 * 1.0, -20 - 3 * 1.5, 30))


def test_equal_volumes_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, numbered(), CANONICAL)

    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_an_array_of_another_shape_has_no_way_back(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "x.nii", numbered())

    with pytest.raises(GeometryMismatch) as raised:
        to_layout_of(path, numbered(shape=(3, 4, 6)))

    assert_helps(raised.value, where="x.nii", found="shape (3, 4, 5)", exit_code=3)
