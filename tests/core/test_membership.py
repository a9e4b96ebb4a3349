"""An attack that finds out who was in the training, and the noise that takes its advantage away."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.membership_inference import ATTACKS, advantage, attacked, most_possible


def test_an_attack_on_numbers_that_tell_nothing_has_no_advantage() -> None:
    rng = np.random.default_rng(3)

    found = advantage(rng.normal(size=200), rng.normal(size=200))

    assert found.low <= 0 <= found.high
    assert found.value == pytest.approx(0, abs=0.15)


def test_an_attack_on_numbers_that_tell_all_finds_everybody() -> None:
    found = advantage(np.arange(40.0), np.arange(40.0) + 100)

    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_no_attack_is_better_than_theory_allows() -> None:
    assert most_possible(0, 0) == 0
    assert most_possible(8, 1e-3) < 1
    assert most_possible(0.5, 0) == pytest.approx(np.tanh(0.25))


@pytest.mark.slow
def test_an_over_fitted_model_tells_its_cases_and_one_trained_at_epsilon_8_far_less() -> None:
    bare, _ = attacked(24, 300, None, [1])
    private, cost = attacked(24, 300, 8.0, [1])

    assert cost is not None
    assert cost <= 8
    for name in ATTACKS:
        assert bare[name].value >= 0.2, name
        assert bare[name].low > 0, name
        assert private[name].value < bare[name].value, name
        assert private[name].low <= 0.2, name
