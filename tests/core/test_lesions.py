"""Lesion-wise scores: the challenge's rules one by one, and a slow second way made of sets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from brainunet.data.volumes import read_volume
from brainunet.metrics.lesions import LesionScores, lesion_scores
from brainunet.metrics.report import score_case
from tests.support import slow_metrics
from tests.support.masks import MM, SHAPE, Mask, Spacing, box, masks, spacings
from tests.support.slow_metrics import voxels_of

NOTHING = np.zeros((48, 48, 48), bool)


def counts(score: LesionScores) -> tuple[int, int, int]:
    return score.found, score.missed, score.false_positives


def test_a_stray_component_costs_a_lesion_of_zero_dice_and_374_mm() -> None:
    truth = box(at=(10, 10, 10), size=8)
    predicted = truth | box(at=(40, 40, 40), size=1)

    score = lesion_scores(predicted, truth, spacing_mm=(1, 1, 1))

    assert score.dice == 0.5  # (1 + 0) / (1 lesion + 1 false positive)
    assert score.hd95_mm == 187.0  # (0 + 374) / 2
    assert counts(score) == (1, 0, 1)


def test_a_missed_lesion_costs_the_same_as_a_stray_component() -> None:
    found, missed = box((4, 4, 4), 8), box((30, 30, 30), 5)

    score = lesion_scores(found, found | missed, MM)

    assert (score.dice, score.hd95_mm) == (0.5, 187.0)
    assert counts(score) == (1, 1, 0)


def test_a_small_lesion_weighs_as_much_as_a_large_one() -> None:
    large, small = box((4, 4, 4), 16), box((34, 34, 34), 4)
    half_of_small = box((34, 34, 34), (2, 4, 4))

    score = lesion_scores(large | half_of_small, large | small, MM)

    assert score.dice == pytest.approx((1 + 2 / 3) / 2)  # 2 * 32 / (32 + 64)


def test_nothing_there_and_nothing_claimed_is_right() -> None:
    assert lesion_scores(NOTHING, NOTHING, MM) == LesionScores(1.0, 0.0, 0, 0, 0)


def test_one_empty_mask_costs_the_full_price() -> None:
    two = box((4, 4, 4), 5) | box((30, 30, 30), 5)

    assert lesion_scores(NOTHING, two, MM) == LesionScores(0.0, 374.0, 0, 2, 0)
    assert lesion_scores(two, NOTHING, MM) == LesionScores(0.0, 374.0, 0, 0, 2)


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (7, 2)])
def test_pieces_of_the_truth_are_one_lesion_where_they_touch_once_dilated(gap: int, lesions: int) -> None:
    # each grows by 3 voxels towards the other
    truth = box((4, 4, 4), 5) | box((4, 4, 9 + gap), 5)

    assert lesion_scores(truth, truth, MM).found == lesions


@pytest.mark.parametrize(("gap", "expected"), [(2, (1, 0, 0)), (3, (0, 1, 1))])
def test_a_component_belongs_to_a_lesion_within_three_voxels(gap: int, expected: tuple[int, int, int]) -> None:
    truth, predicted = box((4, 4, 4), 5), box((4, 4, 9 + gap), 5)

    score = lesion_scores(predicted, truth, MM)

    assert counts(score) == expected
    assert score.dice == 0.0
    assert score.hd95_mm < 374 if gap == 2 else score.hd95_mm == 374


def test_all_components_of_a_lesion_are_compared_with_it_together() -> None:
    truth = box((4, 4, 4), (4, 4, 12))
    predicted = truth.copy()
    predicted[:, :, 9] = False  # in two pieces

    score = lesion_scores(predicted, truth, MM)

    assert counts(score) == (1, 0, 0)
    assert score.dice == pytest.approx(2 * 11 / 23)


def test_one_component_may_belong_to_two_lesions_and_is_compared_whole_with_each() -> None:
    one, other = box((4, 4, 4), 4), box((4, 4, 18), 4)
    bridge = box((4, 4, 4), (4, 4, 18))

    score = lesion_scores(bridge, one | other, MM)

    assert counts(score) == (2, 0, 0)
    assert score.dice == pytest.approx(2 * 4 / (18 + 4))


def test_a_lesion_of_fifty_cubic_millimetres_is_left_out_and_one_of_more_is_not() -> None:
    fifty, more = box((4, 4, 4), (2, 5, 5)), box((4, 4, 4), (3, 5, 5))

    assert lesion_scores(NOTHING, fifty, MM) == LesionScores(1.0, 0.0, 0, 0, 0)
    assert lesion_scores(NOTHING, more, MM).missed == 1
    assert lesion_scores(NOTHING, fifty, (1.0000001, 1.0, 1.0)).missed == 0  # the rounding of an affine's numbers


def test_the_threshold_is_in_millimetres_and_not_in_voxels() -> None:
    lesion = box((4, 4, 4), (2, 5, 5))

    assert lesion_scores(NOTHING, lesion, (1.0, 1.0, 1.1)).missed == 1
    assert lesion_scores(NOTHING, box((4, 4, 4), 1), (1.0, 1.0, 51.0)).missed == 1


def test_a_component_that_touches_only_a_lesion_left_out_counts_neither_way() -> None:
    small, large = box((4, 4, 4), 2), box((30, 30, 30), 8)

    assert lesion_scores(small | large, small | large, MM) == LesionScores(1.0, 0.0, 1, 0, 0)
    assert lesion_scores(small, small, MM) == LesionScores(1.0, 0.0, 0, 0, 0)


def test_a_stray_component_counts_however_small_or_large() -> None:
    truth = box((4, 4, 4), 8)
    for size in (1, 10):
        assert lesion_scores(truth | box((30, 30, 30), size), truth, MM).dice == 0.5


def test_corners_join_components() -> None:
    diagonal = box((20, 20, 20), 1) | box((21, 21, 21), 1)

    assert lesion_scores(diagonal, NOTHING, MM).false_positives == 1
    assert lesion_scores(box((20, 20, 20), 1) | box((22, 22, 22), 1), NOTHING, MM).false_positives == 2


def test_masks_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="two shapes"):
        lesion_scores(NOTHING, np.zeros((2, 2, 2), bool), MM)


@given(predicted=masks(), truth=masks(), spacing=spacings)
@settings(deadline=None, max_examples=60)
def test_scores_are_those_of_a_slow_second_way(predicted: Mask, truth: Mask, spacing: Spacing) -> None:
    score = lesion_scores(predicted, truth, spacing)

    expected = slow_metrics.lesions(voxels_of(predicted), voxels_of(truth), spacing, SHAPE)
    assert counts(score) == expected[2:]
    assert (score.dice, score.hd95_mm) == pytest.approx(expected[:2])


@given(predicted=masks(), truth=masks(), spacing=spacings)
@settings(deadline=None, max_examples=30)
def test_where_the_volume_is_cut_changes_nothing(predicted: Mask, truth: Mask, spacing: Spacing) -> None:
    wide = [np.pad(mask, 9) for mask in (predicted, truth)]

    assert lesion_scores(wide[0], wide[1], spacing) == lesion_scores(predicted, truth, spacing)


def real_truth(number: int) -> np.ndarray:
    folder = os.environ.get("BRAINUNET_REAL_CASES")
    if not folder:
        pytest.skip("BRAINUNET_REAL_CASES names no folder of real cases")
    found = sorted(Path(folder).rglob(f"BraTS2021_{number:05d}_seg.nii.gz"))
    if not found:
        pytest.skip(f"BRAINUNET_REAL_CASES holds no case {number:05d}")
    labels = read_volume(found[0]).array.astype(np.uint8)
    labels[labels == 4] = 3
    return labels


@pytest.mark.real
def test_a_real_truth_against_itself_is_perfect() -> None:
    truth = real_truth(1478)

    values = {(row.structure, row.metric): row.value for row in score_case("1478", truth, truth, MM).rows}

    for structure in ("ET", "TC", "WT", "NETC", "SNFH"):
        assert values[structure, "dice"] == values[structure, "lesion_dice"] == values[structure, "nsd_0_5mm"] == 1.0
        assert values[structure, "hd95_mm"] == values[structure, "lesion_hd95_mm"] == 0.0
        assert values[structure, "lesion_fp"] == values[structure, "lesion_fn"] == 0.0


@pytest.mark.real
@pytest.mark.slow
def test_a_real_tumour_of_many_pieces_scores_as_the_slow_second_way_scores_it() -> None:
    """Case 01478 has 17 connected pieces of whole tumour. Every third voxel of it, to make the slow way bearable."""
    truth = np.ascontiguousarray(real_truth(1478)[::3, ::3, ::3] > 0)
    predicted = np.roll(truth, (1, 0, -1), axis=(0, 1, 2))
    predicted[:, :, : truth.shape[2] // 3] = False
    spacing = (3.0, 3.0, 3.0)

    score = lesion_scores(predicted, truth, spacing)

    x, y, z = truth.shape
    expected = slow_metrics.lesions(voxels_of(predicted), voxels_of(truth), spacing, (x, y, z))
    assert counts(score) == expected[2:]
    assert (score.dice, score.hd95_mm) == pytest.approx(expected[:2])
