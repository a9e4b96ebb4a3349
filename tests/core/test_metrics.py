"""What a score says, on numbers by hand and against a slow second way of counting."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainunet.labels import Label
from brainunet.metrics import METRICS
from brainunet.metrics.overlap import dice
from brainunet.metrics.report import STRUCTURES, score_case
from brainunet.metrics.summary import federation_mean, mean_of, site_score
from brainunet.records import CaseScore, CaseScoreRow, SiteScore, Structure

Mask = npt.NDArray[np.bool_]

SHAPE = (4, 3, 2)
masks = hnp.arrays(np.bool_, SHAPE)
label_maps = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 3))


def voxels(array: npt.NDArray[np.uint8], wanted: set[int]) -> set[tuple[int, int, int]]:
    return {(x, y, z) for (x, y, z), value in np.ndenumerate(array) if int(value) in wanted}


def line(*values: int) -> npt.NDArray[np.uint8]:
    return np.array(values, np.uint8)[:, None, None]


def case(case_id: str, **values: float | None) -> CaseScore:
    structures: dict[str, Structure] = {"ET": "ET", "TC": "TC", "WT": "WT"}
    return CaseScore(case_id, tuple(CaseScoreRow(structures[name], "dice", value) for name, value in values.items()))


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


@pytest.mark.parametrize("name", METRICS)
@given(a=masks, b=masks)
def test_every_metric_is_symmetric_and_perfect_agreement_is_best(name: str, a: Mask, b: Mask) -> None:
    metric = METRICS[name]

    assert metric(a, b) == metric(b, a)
    assert metric(a, a) == 1.0
    value = metric(a, b)
    assert value is None or 0 <= value <= 1


@given(predicted=label_maps, truth=label_maps)
def test_the_figures_of_a_case_are_those_of_sets_of_voxels(
    predicted: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]
) -> None:
    tissues = {"ET": {3}, "TC": {1, 3}, "WT": {1, 2, 3}, "NETC": {1}, "SNFH": {2}}
    expected = {}
    for structure, wanted in tissues.items():
        p, t = voxels(predicted, wanted), voxels(truth, wanted)
        expected[structure] = 2 * len(p & t) / (len(p) + len(t)) if p or t else 1.0

    assert rows_of(score_case("case", predicted, truth)) == pytest.approx(expected)


def test_the_regions_are_nested_and_each_holds_the_tissue_of_its_name() -> None:
    assert set(STRUCTURES["ET"]) < set(STRUCTURES["TC"]) < set(STRUCTURES["WT"])
    assert set(STRUCTURES["WT"]) == set(Label) - {Label.BACKGROUND}
    assert STRUCTURES["ET"] == (Label.ET,)
    assert STRUCTURES["NETC"] == (Label.NETC,)
    assert STRUCTURES["SNFH"] == (Label.SNFH,)


def test_calling_enhancing_tumour_necrosis_spoils_et_but_neither_core_nor_whole() -> None:
    score = rows_of(score_case("case", line(1, 1, 2, 0), line(3, 3, 2, 0)))

    assert score == {"ET": 0.0, "TC": 1.0, "WT": 1.0, "NETC": 0.0, "SNFH": 1.0}


def test_every_metric_is_reported_for_every_structure_with_a_value_or_a_reason() -> None:
    rows = score_case("case", line(0, 0), line(0, 0)).rows

    assert {(row.structure, row.metric) for row in rows} == set(product(STRUCTURES, METRICS))
    assert all((row.value is None) == (row.reason is not None) for row in rows)


def test_a_site_s_figures_are_mean_and_median_of_the_cases_that_have_a_value() -> None:
    score = site_score([case("a", ET=0.2, WT=0.9), case("b", ET=None, WT=0.8), case("c", ET=0.4, WT=0.1)])

    et, wt = score.rows
    assert score.cases == 3
    assert (et.structure, et.metric, et.n, et.missing) == ("ET", "dice", 2, 1)
    assert et.mean == pytest.approx(0.3)
    assert et.median == pytest.approx(0.3)
    assert (wt.n, wt.missing, wt.median) == (3, 0, 0.8)
    assert wt.mean == pytest.approx(0.6)


def test_a_structure_that_no_case_has_a_value_for_has_none_rather_than_zero() -> None:
    (row,) = site_score([case("a", ET=None), case("b", ET=None)]).rows

    assert (row.mean, row.median, row.n, row.missing) == (None, None, 0, 2)


def test_a_site_without_cases_has_no_figures() -> None:
    assert site_score([]) == SiteScore(cases=0, rows=())
    assert mean_of(site_score([])) == {}
    assert federation_mean([site_score([])]) == {}


def test_a_site_s_figures_hold_no_case_id() -> None:
    assert "Jane" not in site_score([case("Jane Doe", ET=0.5)]).model_dump_json()


def test_the_federation_s_mean_is_that_of_all_cases_however_they_are_dealt_out() -> None:
    small = site_score([case("a", ET=1.0, TC=0.5)])
    large = site_score([case("b", ET=0.4, TC=None), case("c", ET=0.2, TC=None), case("d", ET=None, TC=None)])
    nothing = site_score([case("e", ET=None, TC=None)])

    mean = federation_mean([small, large, nothing])

    assert mean["ET"] == pytest.approx((1.0 + 0.4 + 0.2) / 3)
    assert mean["TC"] == 0.5
    assert federation_mean([nothing]) == {"ET": None, "TC": None}


@given(st.lists(st.lists(st.none() | st.floats(0, 1), max_size=4), min_size=1, max_size=4))
def test_one_large_site_or_many_small_ones_have_one_mean(sites: list[list[float | None]]) -> None:
    scores = [site_score([case(str(i), WT=value) for i, value in enumerate(site)]) for site in sites]
    everyone = site_score([case("x", WT=value) for site in sites for value in site])

    assert federation_mean(scores).get("WT") == pytest.approx(mean_of(everyone).get("WT"))


def test_only_the_metric_asked_for_is_averaged() -> None:
    score = site_score([CaseScore("a", (CaseScoreRow("ET", "dice", 0.5), CaseScoreRow("ET", "hd95", 374.0)))])

    assert mean_of(score) == federation_mean([score]) == {"ET": 0.5}
    assert mean_of(score, "hd95") == federation_mean([score], "hd95") == {"ET": 374.0}
