"""What private training costs: Opacus' own figures, never less, and the noise that a wish needs."""

from __future__ import annotations

import math
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant

from brainunet.errors import PrivacyError
from brainunet.privacy.accounting import Charge, epsilon_of
from brainunet.privacy.calibration import noise_for, rounds_left

SCHEDULES = {
    "many small steps": ([(1.1, 0.01, 1000)], 1e-5),
    "a hospital of twenty": ([(2.0, 0.2, 100)], 1e-3),
    "half of the cases at once": ([(0.8, 0.5, 20)], 1e-2),
    "most of the cases at once": ([(3.0, 0.7, 200)], 1e-3),
    "all of the cases at once": ([(5.0, 1.0, 50)], 1e-3),
    "three runs": ([(1.3, 0.1, 400), (2.5, 0.4, 77), (0.9, 0.05, 10)], 1e-3),
    "much noise": ([(20.0, 0.9, 10)], 1e-2),
    "little noise": ([(0.5, 0.02, 30)], 1e-4),
}


def opacus_says(history: list[tuple[float, float, int]], delta: float) -> float:
    accountant = RDPAccountant()
    accountant.history = list(history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the best order is the last one, which costs tightness and no truth
        return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_figure_is_that_of_opacus_and_never_below_it(name: str) -> None:
    history, delta = SCHEDULES[name]

    ours = epsilon_of([Charge(*part) for part in history], delta)

    assert 0 <= ours - opacus_says(history, delta) <= 1e-6


@settings(max_examples=15, deadline=None)
@given(st.floats(0.6, 6), st.floats(0.01, 0.95), st.integers(1, 300), st.sampled_from([1e-2, 1e-3, 1e-5]))
def test_any_schedule_costs_what_opacus_says(noise: float, rate: float, steps: int, delta: float) -> None:
    theirs = opacus_says([(noise, rate, steps)], delta)

    assert 0 <= epsilon_of([Charge(noise, rate, steps)], delta) - max(0.0, theirs) <= 1e-6 * max(1, theirs)


def test_one_step_over_all_cases_costs_what_the_formula_gives_by_hand() -> None:
    # RDP of the Gaussian mechanism is order / (2 noise^2); the best whole or fractional order by a slow search
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
    by_hand = min(a / (2 * 16) - (math.log(1e-3) + math.log(a)) / (a - 1) + math.log((a - 1) / a) for a in orders)

    assert epsilon_of([Charge(noise=4.0, rate=1.0)], 1e-3) == pytest.approx(by_hand, abs=1e-7)


def test_nothing_done_costs_nothing_and_a_step_without_noise_costs_everything() -> None:
    assert epsilon_of([], 1e-3) == 0
    assert epsilon_of([Charge(1.0, 0.5, steps=0), Charge(1.0, 0.0)], 1e-3) == 0
    assert epsilon_of([Charge(2.0, 0.1), Charge(0.0, 0.1)], 1e-3) == math.inf


@settings(max_examples=10, deadline=None)
@given(st.permutations([Charge(1.5, 0.1, 7), Charge(2.0, 0.3, 5), Charge(1.5, 0.1, 3)]))
def test_the_order_of_steps_and_how_they_are_grouped_changes_nothing(charges: list[Charge]) -> None:
    grouped = epsilon_of([Charge(2.0, 0.3, 5), Charge(1.5, 0.1, 10)], 1e-3)

    assert epsilon_of(charges, 1e-3) == pytest.approx(grouped, rel=1e-12)


def test_more_steps_never_cost_less() -> None:
    costs = [epsilon_of([Charge(1.2, 0.3, steps)], 1e-3) for steps in (1, 2, 5, 20, 100)]

    assert costs == sorted(costs)


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(8.0, 0.1, 400), (1.0, 0.25, 100), (50.0, 0.5, 10)])
def test_the_noise_keeps_the_budget_and_a_hundredth_less_would_not(epsilon: float, rate: float, steps: int) -> None:
    noise = noise_for(epsilon, 1e-3, rate=rate, steps=steps)

    assert epsilon_of([Charge(noise, rate, steps)], 1e-3) <= epsilon < epsilon_of([Charge(noise * 0.99, rate, steps)], 1e-3)


def test_a_budget_that_no_noise_keeps_is_refused_in_words() -> None:
    with pytest.raises(PrivacyError, match=r"raise epsilon, or ask for fewer rounds|Raise epsilon"):
        noise_for(1e-6, 1e-3, rate=0.5, steps=100_000)


def test_the_rounds_that_are_left_fit_and_one_more_does_not() -> None:
    spent, a_round = [Charge(1.5, 0.1, 100)], Charge(2.0, 0.2, 20)

    left = rounds_left(spent, a_round, 6.0, 1e-3)

    assert left > 0
    assert epsilon_of([*spent, Charge(2.0, 0.2, 20 * left)], 1e-3) <= 6.0 < epsilon_of(
        [*spent, Charge(2.0, 0.2, 20 * (left + 1))], 1e-3
    )  # fmt: skip
    assert rounds_left([Charge(0.5, 0.5, 100)], a_round, 6.0, 1e-3) == 0


@pytest.mark.parametrize("noise", [1e-5, 1e-200])
def test_noise_too_small_to_reckon_with_counts_as_none(noise: float) -> None:
    assert epsilon_of([Charge(noise, 0.5)], 1e-3) == math.inf
