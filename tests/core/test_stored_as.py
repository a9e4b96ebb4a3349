"""What a header says of a file: how it keeps its numbers and its axes, and whether its two forms agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brainunet.data.volumes import stored_as
from brainunet.errors import UnreadableVolume
from tests.support.nifti import write_nifti

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ONES = np.ones((3, 4, 5))


@pytest.mark.parametrize(
    ("dtype", "name", "ceiling"),
    [("u1", "uint8", 255), ("i2", "int16", 32767), ("u2", "uint16", 65535), ("f4", "float32", None), ("f8", "float64", None)],
)
def test_the_number_type_and_the_most_it_holds(tmp_path: Path, dtype: str, name: str, ceiling: float | None) -> None:
    stored = stored_as(write_nifti(tmp_path / "a.nii.gz", ONES.astype(dtype), sform=LPS))

    assert (stored.number_type, stored.ceiling, stored.axes) == (name, ceiling, "LPS")


def test_a_negative_slope_turns_the_floor_into_the_ceiling(tmp_path: Path) -> None:
    stored = stored_as(write_nifti(tmp_path / "a.nii", ONES.astype("i2"), scl_slope=-2.0, scl_inter=1.0))

    assert stored.ceiling == 65537.0


def test_one_form_is_compared_with_nothing_and_two_by_their_farthest_voxel(tmp_path: Path) -> None:
    assert stored_as(write_nifti(tmp_path / "a.nii", ONES.astype("i2"), sform=LPS)).forms_apart_mm is None

    longer = np.diag([-1.0, -1.0, 1.5, 1.0])
    stored = stored_as(write_nifti(tmp_path / "b.nii", ONES.astype("i2"), sform=LPS, qform=longer))
    assert stored.forms_apart_mm == pytest.approx(4 * 0.5)  # the last of five slices


@pytest.mark.parametrize("quatern", [(2.0, 2.0, 2.0), (float("nan"), 0.0, 0.0), (1e30, -1e30, 0.0)])
def test_a_second_form_that_makes_no_sense_is_not_compared(tmp_path: Path, quatern: tuple[float, ...]) -> None:
    path = write_nifti(tmp_path / "a.nii", ONES.astype("i2"), sform=LPS, codes=(1, 1), quatern=quatern)

    assert stored_as(path).forms_apart_mm is None


def test_what_cannot_be_read_has_no_header_either(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"\x1f\x8b")

    with pytest.raises(UnreadableVolume):
        stored_as(tmp_path / "a.nii.gz")
