"""What a score says, on numbers by hand and against a slow second way of counting."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainunet.config import SITE_METRICS
from brainunet.labels import Label
from brainunet.metrics import METRICS, Missing, pair_of
from brainunet.metrics.overlap import dice
from brainunet.metrics.report import STRUCTURES, score_case
from brainunet.records import CaseScore
from tests.support.masks import MM, Mask, Spacing, box, spacings
from tests.support.masks import masks as small_masks

label_maps = hnp.arrays(np.uint8, (4, 3, 2), elements=st.integers(0, 3))


def voxels(array: npt.NDArray[np.uint8], wanted: set[int]) -> set[tuple[int, int, int]]:
    return {(x, y, z) for (x, y, z), value in np.ndenumerate(array) if int(value) in wanted}


def line(*values: int) -> npt.NDArray[np.uint8]:
    return np.array(values, np.uint8)[:, None, None]


def rows_of(score: CaseScore) -> dict[str, float | None]:
    return {row.structure: row.value for row in score.rows if row.metric == "dice"}


def test_dice_of_three_and_two_voxels_that_share_one() -> None:
    predicted, truth = line(1, 1, 1, 0, 0) > 0, line(0, 0, 1, 1, 0) > 0

    assert dice(predicted, truth) == 2 * 1 / (3 + 2)


def test_nothing_to_find_and_nothing_claimed_is_right_and_one_without_the_other_is_wrong() -> None:
    nothing, something = line(0, 0) > 0, line(0, 1) > 0

    assert dice(nothing, nothing) == 1.0
    assert dice(something, nothing) == dice(nothing, something) == 0.0


def test_masks_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prediction \(2, 1, 1\) and truth \(3, 1, 1\)"):
        dice(line(0, 1) > 0, line(0, 1, 1) > 0)


# What each metric says of no voxel at all, of a prediction without a truth, and of a truth without a prediction; the one mask
# that there is holds 1 ml in one piece, in a volume of 8 ml.
EMPTY: dict[str, tuple[float | None, float | None, float | None]] = {
    "dice": (1, 0, 0),
    "hd95_mm": (0, 374, 374),
    "nsd_0_5mm": (1, 0, 0),
    "nsd_1mm": (1, 0, 0),
    "lesion_dice": (1, 0, 0),
    "lesion_hd95_mm": (0, 374, 374),
    "lesion_tp": (0, 0, 0),
    "lesion_fp": (0, 1, 0),
    "lesion_fn": (0, 0, 1),
    "sensitivity": (None, None, 0),
    "specificity": (1, 7 / 8, 1),
    "volume_ml": (0, 1, 0),
    "truth_volume_ml": (0, 0, 1),
}


def value_of(name: str, predicted: Mask, truth: Mask, spacing: Spacing = MM) -> float | None:
    value = METRICS[name].of(pair_of(predicted, truth, spacing))
    if isinstance(value, Missing):
        assert value.reason
        return None
    assert math.isfinite(value)
    return value


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_it_makes_of_empty_masks(name: str) -> None:
    nothing, tumour = np.zeros((20, 20, 20), bool), box((4, 4, 4), 10, (20, 20, 20))

    values = tuple(value_of(name, *masks) for masks in ((nothing, nothing), (tumour, nothing), (nothing, tumour)))

    assert values == EMPTY[name]


@pytest.mark.parametrize("name", METRICS)
@given(predicted=small_masks(), truth=small_masks(), spacing=spacings)
@settings(deadline=None, max_examples=25)
def test_every_metric_has_a_finite_value_or_a_reason_and_keeps_its_promises(
    name: str, predicted: Mask, truth: Mask, spacing: Spacing
) -> None:
    metric = METRICS[name]
    value, perfect = value_of(name, predicted, truth, spacing), value_of(name, truth, truth, spacing)

    if metric.unit == "" and value is not None:
        assert 0 <= value <= 1
    if value is not None:
        assert value >= 0
    if metric.best is not None and perfect is not None:
        assert perfect == metric.best
    if metric.symmetric:
        assert value_of(name, truth, predicted, spacing) == pytest.approx(value)


@pytest.mark.parametrize("name", METRICS)
@given(predicted=small_masks(), truth=small_masks(), spacing=spacings)
@settings(deadline=None, max_examples=25)
def test_no_metric_depends_on_the_order_or_the_direction_of_the_axes(
    name: str, predicted: Mask, truth: Mask, spacing: Spacing
) -> None:
    turned = [np.flip(mask, axis=0).transpose(2, 0, 1) for mask in (predicted, truth)]

    value = value_of(name, turned[0], turned[1], (spacing[2], spacing[0], spacing[1]))
    assert value == pytest.approx(value_of(name, predicted, truth, spacing))


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"specificity"}))
@given(predicted=small_masks(), truth=small_masks())
@settings(deadline=None, max_examples=15)
def test_air_around_the_masks_changes_only_the_share_of_it_that_was_left_alone(name: str, predicted: Mask, truth: Mask) -> None:
    assert value_of(name, np.pad(predicted, 5), np.pad(truth, 5)) == pytest.approx(value_of(name, predicted, truth))


def test_sensitivity_specificity_and_volumes_of_ten_voxels() -> None:
    predicted, truth = line(1, 1, 1, 1, 0, 0, 0, 0, 0, 0) > 0, line(0, 0, 1, 1, 1, 0, 0, 0, 0, 0) > 0

    assert value_of("sensitivity", predicted, truth) == 2 / 3
    assert value_of("specificity", predicted, truth) == 5 / 7
    assert value_of("volume_ml", predicted, truth, (10.0, 5.0, 2.0)) == pytest.approx(0.4)
    assert value_of("truth_volume_ml", predicted, truth, (10.0, 5.0, 2.0)) == pytest.approx(0.3)
    assert value_of("specificity", truth[2:5], truth[2:5]) is None


def test_what_metrics_share_is_computed_once() -> None:
    done: list[int] = []

    def work(predicted: Mask, truth: Mask, spacing_mm: Spacing) -> int:
        done.append(1)
        return len(done)

    pair = pair_of(box((1, 1, 1), 2), box((1, 1, 1), 3), MM)

    assert (pair.once(work), pair.once(work), done) == (1, 1, [1])


def test_what_a_site_may_tell_are_metrics_that_judge_and_their_figures_are_within_bounds() -> None:
    for name, (low, high) in SITE_METRICS.items():
        best = METRICS[name].best
        assert best is not None
        assert low <= best <= high
        assert all(low <= value <= high for value in EMPTY[name] if value is not None)


@given(predicted=label_maps, truth=label_maps)
def test_the_figures_of_a_case_are_those_of_sets_of_voxels(
    predicted: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]
) -> None:
    tissues = {"ET": {3}, "TC": {1, 3}, "WT": {1, 2, 3}, "NETC": {1}, "SNFH": {2}}
    expected = {}
    for structure, wanted in tissues.items():
        p, t = voxels(predicted, wanted), voxels(truth, wanted)
        expected[structure] = 2 * len(p & t) / (len(p) + len(t)) if p or t else 1.0

    assert rows_of(score_case("case", predicted, truth, MM)) == pytest.approx(expected)


def test_the_regions_are_nested_and_each_holds_the_tissue_of_its_name() -> None:
    assert set(STRUCTURES["ET"]) < set(STRUCTURES["TC"]) < set(STRUCTURES["WT"])
    assert set(STRUCTURES["WT"]) == set(Label) - {Label.BACKGROUND}
    assert STRUCTURES["ET"] == (Label.ET,)
    assert STRUCTURES["NETC"] == (Label.NETC,)
    assert STRUCTURES["SNFH"] == (Label.SNFH,)


def test_calling_enhancing_tumour_necrosis_spoils_et_but_neither_core_nor_whole() -> None:
    score = rows_of(score_case("case", line(1, 1, 2, 0), line(3, 3, 2, 0), MM))

    assert score == {"ET": 0.0, "TC": 1.0, "WT": 1.0, "NETC": 0.0, "SNFH": 1.0}


def test_every_metric_is_reported_for_every_structure_with_a_value_or_a_reason() -> None:
    rows = score_case("case", line(0, 0), line(0, 0), MM).rows

    assert {(row.structure, row.metric) for row in rows} == set(product(STRUCTURES, METRICS))
    assert all((row.value is None) == (row.reason is not None) for row in rows)


def test_only_the_metrics_asked_for_are_computed() -> None:
    rows = score_case("case", line(0, 1), line(0, 1), MM, ["hd95_mm", "dice"]).rows

    assert [(row.structure, row.metric) for row in rows] == list(product(STRUCTURES, ["hd95_mm", "dice"]))


def test_specificity_counts_the_whole_volume_and_not_the_box_around_the_tumour() -> None:
    predicted, truth = line(1, 1, *[0] * 98), line(1, 0, *[0] * 98)

    rows = {row.structure: row.value for row in score_case("case", predicted, truth, MM, ["specificity"]).rows}

    assert rows["NETC"] == 98 / 99


def test_label_maps_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="two shapes"):
        score_case("case", line(0, 1), line(0, 1, 1), MM)
