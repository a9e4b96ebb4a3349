"""What the network eats: the brain, cropped, clipped and scaled, in the order of the modalities."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from brainunet.config import PreprocessConfig
from brainunet.data.preprocess import PreparedCase, bounding_box, prepare
from brainunet.data.volumes import read_volume
from brainunet.errors import BrainUNetError, DataError, GeometryMismatch, MissingModality, UnknownLabel, UnreadableVolume
from brainunet.labels import DEFAULT_MODALITIES, Convention, Label, Modality
from brainunet.records import Case
from tests.support.cases import AFRICA, GLI_2021, SHAPE, assert_helps, head, only_case, tumour, write_case
from tests.support.nifti import write_nifti

Array = npt.NDArray[Any]
TIGHT = PreprocessConfig(crop_margin_voxels=0)


def prepared(case: Case, config: PreprocessConfig = TIGHT) -> PreparedCase:
    return prepare(case, DEFAULT_MODALITIES, config)


def crop_of(case: PreparedCase) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in case.box)


def slow_z_scores(values: list[float], low_percent: float, high_percent: float) -> list[float]:
    """Clip and z-score one number at a time, with percentiles by linear interpolation between ranks."""
    ranked = sorted(values)

    def percentile(percent: float) -> float:
        rank = percent / 100 * (len(ranked) - 1)
        below = math.floor(rank)
        above = min(below + 1, len(ranked) - 1)
        return ranked[below] + (rank - below) * (ranked[above] - ranked[below])

    low, high = percentile(low_percent), percentile(high_percent)
    clipped = [min(max(value, low), high) for value in values]
    mean = sum(clipped) / len(clipped)
    spread = math.sqrt(sum((value - mean) ** 2 for value in clipped) / len(clipped))
    return [(value - mean) / spread for value in clipped]


@pytest.mark.parametrize("percentiles", [(0.5, 99.5), (5.0, 90.0), (0.0, 100.0)])
def test_each_channel_is_clipped_and_z_scored_inside_the_brain(percentiles: tuple[float, float], tmp_path: Path) -> None:
    write_case(tmp_path)

    case = prepared(only_case(tmp_path), PreprocessConfig(clip_percentiles=percentiles, crop_margin_voxels=0))

    assert case.image.dtype == np.float16
    for channel, seed in enumerate((1, 2, 3)):  # t1c, t2w, t2f of write_case
        raw = head(seed)[2:-2, 2:-2, 2:-2].ravel().astype(float).tolist()
        assert case.image[channel].ravel() == pytest.approx(slow_z_scores(raw, *percentiles), abs=2e-3)


def test_channels_follow_the_order_of_the_modalities(tmp_path: Path) -> None:
    write_case(tmp_path)
    case = only_case(tmp_path)
    order = (Modality.T2F, Modality.T1N, Modality.T1C)

    turned = prepare(case, order, TIGHT)

    for channel, modality in enumerate(order):
        assert np.array_equal(turned.image[channel], prepare(case, (modality,), TIGHT).image[0])


def test_the_brain_is_where_any_modality_is_not_zero_and_negative_voxels_belong_to_it(tmp_path: Path) -> None:
    t1c, t2w, t2f = (np.zeros(SHAPE, np.int16) for _ in range(3))
    t1c[3, 3, 3:6] = (-290, -5, 7)
    t2w[3, 3, 5:8] = (1, 2, -3)
    t2f[4, 4, 4] = 9
    t2f[3, 3, 3] = 1
    write_case(tmp_path, images={"t1c": t1c, "t2w": t2w, "t2f": t2f}, label=tumour())
    case = only_case(tmp_path, need_label=False)

    image = prepare(replace(case, label=None), DEFAULT_MODALITIES, TIGHT)

    assert image.box == ((3, 5), (3, 5), (3, 8))
    inside = (t1c != 0) | (t2w != 0) | (t2f != 0)
    for channel in image.image:
        assert np.array_equal(channel != 0, inside[crop_of(image)])  # no voxel happens to lie at the mean


def test_outside_the_brain_is_exactly_zero(tmp_path: Path) -> None:
    write_case(tmp_path)

    case = prepared(only_case(tmp_path), PreprocessConfig(crop_margin_voxels=2))

    assert case.box == ((0, 12), (0, 11), (0, 10))
    assert not case.image[:, head() == 0].any()


def test_a_label_outside_the_brain_stays_in_the_crop(tmp_path: Path) -> None:
    label = tumour()
    label[11, 0, 9] = Label.SNFH
    write_case(tmp_path, label=label)

    case = prepared(only_case(tmp_path))

    assert case.box == ((2, 12), (0, 9), (2, 10))
    assert case.label is not None
    assert np.count_nonzero(case.label) == np.count_nonzero(label)


@pytest.mark.parametrize(("case_id", "enhancing"), [(AFRICA, 3), (GLI_2021, 4)])
def test_labels_become_the_projects_own_numbers(case_id: str, enhancing: int, tmp_path: Path) -> None:
    write_case(tmp_path, case_id, label=tumour(enhancing=enhancing).astype(np.float32))

    case = prepared(only_case(tmp_path))

    assert case.label is not None
    assert case.label.dtype == np.uint8
    assert np.array_equal(case.label, tumour(enhancing=Label.ET)[crop_of(case)])


def test_the_crop_can_be_put_back_where_it_came_from(tmp_path: Path) -> None:
    turned = np.array([[0.0, -1, 0, 5], [0, 0, 2, -6], [1, 0, 0, 7], [0, 0, 0, 1]])
    write_case(tmp_path, sform=turned)
    case = only_case(tmp_path)

    ready = prepared(case, PreprocessConfig(crop_margin_voxels=1))

    whole = read_volume(case.images[Modality.T1C])
    assert ready.shape == whole.array.shape
    assert np.array_equal(ready.affine, whole.affine)
    assert ready.spacing_mm == whole.spacing_mm == (1, 2, 1)
    back = np.zeros(ready.shape, bool)
    back[crop_of(ready)] = ready.image[0] != 0
    assert np.array_equal(back, whole.array != 0)


@pytest.mark.parametrize(("slope", "intercept"), [(1e-9, 0.0), (1e6, 0.0), (3.0, 0.0)])
def test_the_unit_of_intensity_does_not_matter(slope: float, intercept: float, tmp_path: Path) -> None:
    images = {m.value: head(seed) for seed, m in enumerate(DEFAULT_MODALITIES)}
    write_case(tmp_path / "raw", images=images)
    write_case(tmp_path / "scaled", images={m: (i * slope + intercept).astype(np.float32) for m, i in images.items()})

    raw, scaled = (prepared(only_case(tmp_path / name)) for name in ("raw", "scaled"))

    assert scaled.image == pytest.approx(raw.image, abs=2e-3)


def test_files_of_one_case_may_be_stored_in_different_orientations(tmp_path: Path) -> None:
    folder = write_case(tmp_path)
    expected = prepared(only_case(tmp_path))
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = SHAPE[0] - 1
    write_nifti(folder / f"{AFRICA}-t2w.nii.gz", head(2)[::-1], sform=mirrored)

    assert np.array_equal(prepared(only_case(tmp_path)).image, expected.image)


def test_a_box_is_widened_by_its_margin_and_cut_at_the_edge() -> None:
    mask = np.zeros((10, 10, 10), bool)
    mask[4, 1:3, 9] = True

    assert bounding_box(mask, 0) == ((4, 5), (1, 3), (9, 10))
    assert bounding_box(mask, 2) == ((2, 7), (0, 5), (7, 10))


# --- cases that can't be used -----------------------------------------------------------------------------------------------

SHIFTED = np.array([[1.0, 0, 0, 0.02], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
TILTED = np.array([[1.0, 0.01, 0, 0], [-0.01, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def flat() -> Array:
    return np.where(head() == 0, 0, 70).astype(np.int16)


def fractional() -> Array:
    return np.asarray(tumour() * np.float32(0.5))


def not_a_number() -> Array:
    image = head().astype(np.float32)
    image[5, 5, 5] = np.nan
    return image


# What is wrong -> the file replaced, its content, the error's class and what it says was found.
BAD_CASES: dict[str, tuple[str, Array, dict[str, Any], type[BrainUNetError], str]] = {
    "another shape": ("t2w", head(1, (12, 11, 9)), {}, GeometryMismatch, "shape (12, 11, 9)"),
    "another place": ("t2w", head(1), {"sform": SHIFTED}, GeometryMismatch, "from (0.02, 0.00, 0.00)"),
    "another direction": ("t2f", head(1), {"sform": TILTED}, GeometryMismatch, "to (11.10, 9.89, 9.00)"),
    "a segmentation on another grid": ("seg", tumour(), {"sform": SHIFTED}, GeometryMismatch, "from (0.02"),
    "four axes": ("t1c", np.stack([head()] * 2, axis=3), {}, UnreadableVolume, "4 axes, shape (12, 11, 10, 2)"),
    "NaN": ("t2f", not_a_number(), {}, UnreadableVolume, "1 voxels that are NaN"),
    "a modality of zeros": ("t2w", head() * 0, {}, DataError, "the same intensity (0) all over the brain"),
    "a constant modality": ("t2f", flat(), {}, DataError, "the same intensity (70) all over the brain"),
    "a label of the other convention": ("seg", tumour(enhancing=4), {}, UnknownLabel, "label 4"),
    "a negative label": ("seg", tumour().astype(np.int16) * -1, {}, UnknownLabel, "label -3, -2, -1"),
    "fractions": ("seg", fractional(), {}, UnknownLabel, "label 0.5, 1.5"),
    "many labels": ("seg", head(), {}, UnknownLabel, "label -39, -38, -37, -36"),
    "a huge label": ("seg", tumour().astype(np.float64) * 2**40, {}, UnknownLabel, "label 1.09951e+12"),
    "no tumour": ("seg", tumour() * 0, {}, DataError, "label 0 everywhere"),
    "tumour everywhere": ("seg", tumour() * 0 + 2, {}, DataError, "label 2 everywhere"),
}


@pytest.mark.parametrize("problem", BAD_CASES)
def test_a_bad_case_becomes_one_helpful_sentence_about_one_file(problem: str, tmp_path: Path) -> None:
    kind, array, header, expected, found = BAD_CASES[problem]
    folder = write_case(tmp_path)
    path = write_nifti(folder / f"{AFRICA}-{kind}.nii.gz", array, **header)

    with pytest.raises(expected) as raised:
        prepared(only_case(tmp_path))

    assert type(raised.value) is expected
    assert_helps(raised.value, where=path.name, found=found, exit_code=3)


def test_3_in_a_case_of_2021_names_is_refused_with_the_numbers_of_2021(tmp_path: Path) -> None:
    write_case(tmp_path, GLI_2021, label=tumour(enhancing=3))

    with pytest.raises(UnknownLabel) as raised:
        prepared(only_case(tmp_path))

    assert_helps(raised.value, where=f"{GLI_2021}_seg.nii.gz", found="label 3", exit_code=3)
    assert raised.value.expected == "only 0, 1, 2, 4 (brats2021)"


def test_an_explicit_convention_is_the_one_that_counts(tmp_path: Path) -> None:
    write_case(tmp_path, "patient7", label=tumour(enhancing=4))

    assert prepared(only_case(tmp_path, convention=Convention.BRATS2021)).label is not None
    with pytest.raises(UnknownLabel):
        prepared(only_case(tmp_path, convention=Convention.BRATS2023))


def test_a_case_of_zeros_has_no_brain(tmp_path: Path) -> None:
    write_case(tmp_path, images={m.value: head() * 0 for m in DEFAULT_MODALITIES})

    with pytest.raises(DataError) as raised:
        prepared(only_case(tmp_path))

    assert_helps(raised.value, where=AFRICA, found="every voxel of every modality is 0", exit_code=3)


def test_grids_that_disagree_name_both_files(tmp_path: Path) -> None:
    folder = write_case(tmp_path)
    write_nifti(folder / f"{AFRICA}-t2f.nii.gz", head(1, (12, 11, 9)))

    with pytest.raises(GeometryMismatch) as raised:
        prepared(only_case(tmp_path))

    assert raised.value.where == f"{AFRICA}-t2f.nii.gz"
    assert raised.value.expected.startswith(f"the grid of {AFRICA}-t1c.nii.gz: shape (12, 11, 10)")


def test_a_modality_that_the_case_lacks_is_named(tmp_path: Path) -> None:
    write_case(tmp_path)
    case = only_case(tmp_path)
    images: dict[Modality, Path] = {m: case.images[m] for m in (Modality.T1C, Modality.T2W)}

    with pytest.raises(MissingModality) as raised:
        prepared(replace(case, images=images))

    assert_helps(raised.value, where=AFRICA, found="no file for t2f", exit_code=3)
