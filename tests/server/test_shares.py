"""How much each site counts in a mean, whatever its number of cases."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainunet_server.shares import shares

CASES = st.dictionaries(st.text("ABC", min_size=1, max_size=4), st.integers(1, 10_000_000), min_size=1, max_size=12)
CAPS = st.floats(0.001, 1.0)
FEW = settings(max_examples=50)


def parts(weights: dict[str, float]) -> dict[str, float]:
    whole = sum(weights.values())
    return {site: weight / whole for site, weight in weights.items()}


@FEW
@given(CASES, CAPS)
def test_no_site_counts_for_more_than_the_cap(cases: dict[str, int], cap: float) -> None:
    reachable = max(cap, 1 / len(cases))

    assert max(parts(shares(cases, cap)).values()) <= reachable * (1 + 1e-9)


@FEW
@given(CASES, CAPS)
def test_every_site_counts_for_something_and_is_named_where_it_was(cases: dict[str, int], cap: float) -> None:
    weights = shares(cases, cap)

    assert list(weights) == list(cases)
    assert min(weights.values()) > 0


@FEW
@given(CASES, CAPS)
def test_a_site_with_more_cases_never_counts_for_less(cases: dict[str, int], cap: float) -> None:
    weights = shares(cases, cap)

    by_cases = sorted(cases, key=cases.__getitem__)
    for fewer, more in pairwise(by_cases):
        assert weights[fewer] <= weights[more] * (1 + 1e-9)
    for site, number in cases.items():
        assert [weights[other] for other in cases if cases[other] == number] == [weights[site]] * list(cases.values()).count(
            number
        )


@FEW
@given(CASES, CAPS)
def test_sites_below_the_cap_count_by_their_cases_and_the_others_are_at_the_cap(cases: dict[str, int], cap: float) -> None:
    part = parts(shares(cases, cap))
    if cap * len(cases) <= 1:
        return

    below = [site for site in cases if part[site] < cap * (1 - 1e-6)]
    for site in below:
        assert part[site] / part[below[0]] == pytest.approx(cases[site] / cases[below[0]])
    for site in set(cases) - set(below):
        assert part[site] == pytest.approx(cap)
        # at the cap is only who would be above it by cases
        assert cases[site] / sum(cases.values()) > cap * (1 - 1e-6) or len(set(cases) - set(below)) > 1


@FEW
@given(CASES)
def test_without_a_cap_every_site_counts_by_its_cases(cases: dict[str, int]) -> None:
    if len(cases) == 1:
        assert shares(cases) == dict.fromkeys(cases, 1.0)
    else:
        assert shares(cases) == cases
        assert shares(cases, 1.0) == cases


@FEW
@given(CASES, st.floats(0.001, 1.0))
def test_a_cap_that_cannot_hold_for_all_makes_all_equal(cases: dict[str, int], below: float) -> None:
    assert shares(cases, below / len(cases)) == dict.fromkeys(cases, 1.0)


@FEW
@given(CASES, CAPS)
def test_who_is_listed_first_makes_no_difference(cases: dict[str, int], cap: float) -> None:
    assert shares(dict(reversed(cases.items())), cap) == pytest.approx(shares(cases, cap))


def test_no_site_gives_no_share() -> None:
    assert shares({}) == {}
    assert shares({}, 0.5) == {}


def test_shares_worked_out_by_hand() -> None:
    # 0.4 of the whole each for A and B, so that C's 20 cases are the last fifth of 100
    assert shares({"A": 300, "B": 200, "C": 20}, 0.4) == pytest.approx({"A": 40.0, "B": 40.0, "C": 20.0})
    # at first only A is above a half; the rest of 30 makes a whole of 60
    assert shares({"A": 70, "B": 20, "C": 10}, 0.5) == pytest.approx({"A": 30.0, "B": 20.0, "C": 10.0})
    # A capped at 0.35 makes B's part larger than 0.35 too
    assert shares({"A": 60, "B": 30, "C": 10, "D": 5}, 0.35) == pytest.approx({"A": 17.5, "B": 17.5, "C": 10.0, "D": 5.0})
