"""From cases to a site and to the federation: means, what is withheld, the worst site, the best round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.metrics.summary import (
    Worst,
    best_round,
    best_round_by_worst,
    federation_mean,
    mean_of,
    mean_region_dice,
    site_score,
    worst_region_dice,
    worst_site,
)
from brainunet.records import CaseScore, CaseScoreRow, ScoreRow, SiteScore, Structure


def case(case_id: str, **values: float | None) -> CaseScore:
    structures: dict[str, Structure] = {"ET": "ET", "TC": "TC", "WT": "WT"}
    return CaseScore(case_id, tuple(CaseScoreRow(structures[name], "dice", value) for name, value in values.items()))


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


def site(*et: float | None, wt: float | None = None, min_cases: int = 1) -> SiteScore:
    """A site whose cases have these Dice of ET, and all the same of WT if there is one."""
    values = [{"ET": value} | ({} if wt is None else {"WT": wt}) for value in et]
    return site_score([case(str(i), **each) for i, each in enumerate(values)], min_cases)


def test_figures_over_too_few_cases_are_withheld_and_the_number_of_cases_is_told() -> None:
    assert site(0.2, 0.4, min_cases=3) == SiteScore(cases=2, rows=(), withheld=True)
    assert site(0.2, 0.4, 0.6, min_cases=3).rows[0].mean == pytest.approx(0.4)
    assert not site(0.2, 0.4, 0.6, min_cases=3).withheld


def test_a_site_without_cases_has_nothing_to_withhold() -> None:
    assert site_score([], 3) == SiteScore(cases=0, rows=())


def test_a_figure_that_too_few_cases_have_is_dropped_and_only_how_many_is_told() -> None:
    score = site_score([case("a", ET=0.2, WT=0.9), case("b", ET=None, WT=0.8), case("c", ET=0.4, WT=0.7)], 3)

    et, wt = score.rows
    assert (et.mean, et.median, et.n, et.missing) == (None, None, 2, 1)
    assert wt.mean == pytest.approx(0.8)
    assert not score.withheld
    assert "0.2" not in score.model_dump_json()
    assert "0.4" not in score.model_dump_json()


@given(st.lists(st.none() | st.floats(0, 1), max_size=6), st.integers(1, 5))
def test_no_figure_over_fewer_cases_than_the_minimum_ever_leaves(values: list[float | None], min_cases: int) -> None:
    score = site(*values, min_cases=min_cases)

    assert score.cases == len(values)
    assert all(row.n >= min_cases for row in score.rows if row.mean is not None or row.median is not None)
    assert all(row.mean is not None for row in score.rows if row.n >= min_cases)


def test_a_withheld_figure_is_absent_from_every_mean_and_not_a_zero_in_it() -> None:
    told, all_withheld, et_withheld = site(0.8, 0.6, wt=0.5), site(0.1, min_cases=2), site(0.1, None, wt=0.9, min_cases=2)

    assert mean_of(all_withheld) == {}
    assert mean_of(et_withheld) == {"ET": None, "WT": 0.9}
    assert federation_mean([told, all_withheld]) == federation_mean([told])
    assert federation_mean([told, et_withheld])["ET"] == pytest.approx(0.7)
    assert federation_mean([all_withheld, et_withheld])["ET"] is None
    assert mean_region_dice([all_withheld]) is None
    assert mean_region_dice([told, et_withheld]) == pytest.approx((0.7 + 0.7) / 2)
    assert best_round({0: mean_region_dice([told]), 1: mean_region_dice([all_withheld])}) == 0


def test_the_worst_site_is_found_for_each_structure_among_those_that_tell() -> None:
    sites = {
        "LASUTH": site(0.3, wt=0.9),
        "CRV": site(0.3, wt=0.5),
        "silent": site(0.0, min_cases=2),
        "half-silent": site(0.1, None, wt=0.8, min_cases=2),
    }

    assert worst_site(sites) == {"ET": Worst("CRV", 0.3), "WT": Worst("CRV", 0.5)}
    assert worst_region_dice(sites) == pytest.approx(0.4)
    assert worst_site({"silent": site(0.0, min_cases=2)}) == {}
    assert worst_region_dice({}) is None


def test_the_best_round_by_the_worst_site_is_not_the_best_by_the_mean() -> None:
    rounds = {
        0: {"large": site(0.5, 0.5, 0.5), "small": site(0.4)},
        1: {"large": site(0.9, 0.9, 0.9), "small": site(0.1)},
        2: {"large": site(0.6, 0.6, 0.6), "small": site(0.45)},
        3: {"large": site(0.5, 0.5, 0.5), "small": site(0.45)},
    }

    assert best_round({number: mean_region_dice(sites.values()) for number, sites in rounds.items()}) == 1
    assert best_round_by_worst(rounds) == 2  # the earliest of equals


def test_a_round_that_the_worst_site_missed_does_not_win_by_that() -> None:
    both, one = {"large": site(0.8), "small": site(0.4)}, {"large": site(0.9)}

    assert best_round_by_worst({0: both, 1: one}) == 0
    assert best_round_by_worst({0: one, 1: one | {"small": site(0.0, min_cases=2)}}) == 0
    assert best_round_by_worst({}) is None
    assert best_round_by_worst({0: {"small": site(0.4, min_cases=2)}}) is None


def test_a_figure_of_no_case_is_refused() -> None:
    with pytest.raises(ValueError, match="a figure of no case"):
        ScoreRow(structure="ET", metric="dice", mean=0.5, median=None, n=0, missing=3)
    with pytest.raises(ValueError, match="withheld, and yet there are figures"):
        SiteScore(cases=3, rows=site(0.5).rows, withheld=True)
