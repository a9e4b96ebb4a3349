"""What every strategy promises, whatever Flower does inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainunet.config import StrategyConfig
from brainunet.errors import ConfigError
from brainunet.weights import WeightedMean, Weights
from brainunet_server.flower.strategies import STRATEGIES, strategy_from
from brainunet_server.rounds import Strategy
from tests.support.replies import START

values = st.floats(-1e3, 1e3, width=32)


@pytest.fixture(autouse=True)
def _outside_any_task_of_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)


def made_of(numbers: Sequence[float]) -> Weights:
    """Weights of START's layout."""
    return Weights.from_flat(START.layout, np.array(numbers, np.float32))


def mean_of(sites: Sequence[tuple[Weights, int]]) -> tuple[Weights, int]:
    mean = WeightedMean()
    for weights, cases in sites:
        mean.fold(weights, weight=cases)
    return mean.result(), int(mean.total)


def strategy(name: str) -> Strategy:
    return strategy_from(StrategyConfig(name=name))


@pytest.mark.parametrize("name", STRATEGIES)
@given(numbers=st.lists(values, min_size=5, max_size=5), cases=st.integers(1, 10_000_000))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_site_alone_gets_its_own_weights_back(name: str, numbers: list[float], cases: int) -> None:
    mean, total = mean_of([(made_of(numbers), cases)])

    after = strategy(name).step(1, START, mean, total)

    assert after.layout == START.layout
    assert {array.dtype for array in after.arrays} == {np.dtype(np.float32)}
    np.testing.assert_allclose(after.flat(), np.array(numbers, np.float32), rtol=1e-6)


@pytest.mark.parametrize("name", STRATEGIES)
@given(
    sites=st.lists(st.tuples(st.lists(values, min_size=5, max_size=5), st.integers(1, 500)), min_size=2, max_size=5),
    random=st.randoms(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_the_sites_does_not_matter_and_the_mean_lies_among_them(
    name: str, sites: list[tuple[list[float], int]], random: object
) -> None:
    given_sites = [(made_of(numbers), cases) for numbers, cases in sites]
    shuffled = list(given_sites)
    random.shuffle(shuffled)  # type: ignore[attr-defined] # a random.Random

    one, other = (strategy(name).step(1, START, *mean_of(order)).flat() for order in (given_sites, shuffled))

    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-3)
    everyone = np.stack([weights.flat() for weights, _ in given_sites])
    assert (one <= everyone.max(axis=0) + 1e-3).all()
    assert (one >= everyone.min(axis=0) - 1e-3).all()


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_can_be_asked_round_after_round_and_repeats(name: str) -> None:
    made = []
    for _ in range(2):
        step, current = strategy(name), START
        for exchange in (1, 2, 3):
            current = step.step(exchange, current, current.plus(made_of([0.5] * 5)), cases=10)
        made.append(current.digest)

    assert made[0] == made[1]


def test_fedavg_is_the_mean_weighted_by_cases() -> None:
    mean, total = mean_of([(made_of([0, 0, 0, 0, 8]), 30), (made_of([4, 4, 4, 4, 0]), 10)])

    after = strategy("fedavg").step(1, START, mean, total)

    assert after.flat().tolist() == [1, 1, 1, 1, 6]
    assert strategy("fedavg").proximal_mu == 0


def test_fedprox_averages_alike_and_asks_the_sites_to_stay_near() -> None:
    prox = strategy_from(StrategyConfig(name="fedprox", proximal_mu=0.25))

    assert prox.proximal_mu == 0.25
    assert prox.step(1, START, made_of([1, 2, 3, 4, 5]), cases=7).flat().tolist() == [1, 2, 3, 4, 5]


def test_a_strategy_leaves_what_it_was_given_as_it_was() -> None:
    mean = made_of([1, 2, 3, 4, 5])
    before = (mean.flat().tolist(), START.flat().tolist())

    strategy("fedavg").step(1, START, mean, cases=1)

    assert (mean.flat().tolist(), START.flat().tolist()) == before


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.name: fedavgg is not known \(did you mean fedavg\?\)"):
        strategy_from(StrategyConfig(name="fedavgg"))
