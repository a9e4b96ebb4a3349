"""The strategies' formulas once more in plain numpy, and what they are good for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAdam, FedAvgM, FedYogi
from flwr.supercore.task_identity import TaskIdentity

from brainunet.weights import Weights
from brainunet_server.flower.aggregation import ARRAYS, aggregated
from brainunet_server.flower.strategies import STRATEGIES
from tests.support.replies import START
from tests.support.steps import COMPARING, REMEMBERING, SIZE, around, made_of, mean_of, strategy

Floats = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def _outside_any_task_of_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)


def test_fedavg_is_the_mean_weighted_by_cases() -> None:
    mean, total = mean_of([(made_of([0, 0, 0, 0, 8]), 30), (made_of([4, 4, 4, 4, 0]), 10)])

    after = strategy("fedavg").step(1, START, mean, total)

    assert after.flat().tolist() == [1, 1, 1, 1, 6]
    assert strategy("fedavg").proximal_mu == 0


def test_fedprox_averages_alike_and_asks_the_sites_to_stay_near() -> None:
    prox = strategy("fedprox", proximal_mu=0.25)

    assert prox.proximal_mu == 0.25
    assert prox.step(1, START, made_of([1, 2, 3, 4, 5]), cases=7).flat().tolist() == [1, 2, 3, 4, 5]


class Formula:
    """Reddi et al. 2021, algorithm 2, and Hsu et al. 2019, in float64 on all sites' models."""

    def __init__(self, name: str, rate: float, beta_1: float, beta_2: float, tau: float) -> None:
        self.name, self.rate, self.beta_1, self.beta_2, self.tau = name, rate, beta_1, beta_2, tau
        self.m: Floats = np.zeros(SIZE)
        self.v: Floats = np.zeros(SIZE)

    def step(self, exchange: int, current: Floats, sites: Sequence[tuple[Floats, float]]) -> Floats:
        total = sum(cases for _, cases in sites)
        delta: Floats = sum((cases / total * (model - current) for model, cases in sites), np.zeros(SIZE))
        if self.name == "fedavgm":
            self.m = self.beta_1 * self.m + delta
            return current + self.rate * self.m
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * delta
        rate = self.rate
        if self.name == "fedadam":
            self.v = self.beta_2 * self.v + (1 - self.beta_2) * delta**2
            # Flower's addition: the correction of Kingma and Ba 2015, one step ahead
            rate *= np.sqrt(1 - self.beta_2 ** (exchange + 1)) / (1 - self.beta_1 ** (exchange + 1))
        else:
            self.v = self.v - (1 - self.beta_2) * delta**2 * np.sign(self.v - delta**2)
        return current + rate * self.m / (np.sqrt(self.v) + self.tau)


@pytest.mark.parametrize("name", REMEMBERING)
@pytest.mark.parametrize("numbers", [(0.02, 0.9, 0.99, 1e-3), (0.3, 0.0, 0.5, 0.1), (1.0, 0.5, 0.0, 1.0)])
def test_momentum_and_adaptive_steps_are_those_of_the_papers(name: str, numbers: tuple[float, float, float, float]) -> None:
    rate, beta_1, beta_2, tau = numbers
    taken = strategy(name, server_learning_rate=rate, momentum=beta_1, second_momentum=beta_2, adaptivity=tau)
    formula, random = Formula(name, *numbers), np.random.default_rng(3)
    current, expected = START, START.flat().astype(np.float64)
    for exchange in range(1, 7):
        sites = around(current, random)
        current = taken.step(exchange, current, *mean_of(sites))
        expected = formula.step(exchange, expected, [(model.flat().astype(np.float64), cases) for model, cases in sites])
        np.testing.assert_allclose(current.flat(), expected, rtol=0, atol=2e-5)
    assert np.abs(expected - START.flat()).max() > 0.005  # it went somewhere


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in COMPARING])
def test_the_mean_as_one_reply_is_what_flower_makes_of_all_replies(name: str) -> None:
    """The step from a mean, against Flower's own strategy that is given each site's message."""
    ours, flowers, random = strategy(name), strategy(name).inner, np.random.default_rng(4)
    current = START
    for exchange in range(1, 5):
        sites = around(current, random)
        if isinstance(flowers, FedAdam | FedYogi):
            flowers.current_arrays = {ARRAYS: current.flat()}
        elif isinstance(flowers, FedAvgM):
            flowers.current_arrays = ArrayRecord({ARRAYS: Array(current.flat())})
        from_all = aggregated(flowers, exchange, [(model.flat(), cases) for model, cases in sites])
        current = ours.step(exchange, current, *mean_of(sites))
        np.testing.assert_allclose(current.flat(), from_all, rtol=0, atol=2e-6)


def test_without_a_rate_of_their_own_no_first_step_is_longer_than_the_sites_change() -> None:
    for name in REMEMBERING:
        for change in (1e-5, 1e-3, 1e-2, 1.0):
            current = made_of([0.0] * 5)
            after = strategy(name).step(1, current, made_of([change] * 5), cases=1).flat()
            assert (after > 0).all()
            assert (after <= change * 1.0001).all()
    assert strategy("fedavgm").step(1, START, made_of([1, 2, 3, 4, 5]), cases=1).flat().tolist() == [1, 2, 3, 4, 5]


def plain_median(models: Floats, shares: Floats, current: Floats) -> Floats:
    ordered = np.sort(models, axis=0)
    median: Floats = (ordered[(len(models) - 1) // 2] + ordered[len(models) // 2]) / 2
    return median


def plain_trimmed_mean(models: Floats, shares: Floats, current: Floats) -> Floats:
    cut = int(0.2 * len(models))
    mean: Floats = np.sort(models, axis=0)[cut : len(models) - cut].mean(axis=0)
    return mean


def plain_multi_krum(models: Floats, shares: Floats, current: Floats) -> Floats:
    count, hostile = len(models), 1
    apart = [[((a - b) ** 2).sum() for b in models] for a in models]
    scores = [sum(sorted(row[:own] + row[own + 1 :])[: count - hostile - 2]) for own, row in enumerate(apart)]
    chosen = np.argsort(scores)[: count - hostile - 2]
    mean: Floats = np.average(models[chosen], axis=0, weights=shares[chosen])
    return mean


@pytest.mark.parametrize(
    ("name", "formula"),
    [("fedmedian", plain_median), ("fedtrimmedavg", plain_trimmed_mean), ("multikrum", plain_multi_krum)],
)
@pytest.mark.parametrize("count", [5, 6, 9])
def test_comparing_steps_are_those_of_the_papers(
    name: str, formula: Callable[[Floats, Floats, Floats], Floats], count: int
) -> None:
    taken, current, random = strategy(name, malicious_sites=1), START, np.random.default_rng(count)
    for exchange in range(1, 5):
        sites = around(current, random, sites=count)
        models = np.stack([model.flat() for model, _ in sites]).astype(np.float64)
        expected = formula(models, np.array([share for _, share in sites]), current.flat().astype(np.float64))
        current = taken.step_from_all(exchange, current, sites)
        np.testing.assert_allclose(current.flat(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.parametrize("far", [1e2, 1e12, 1e30])
def test_one_hostile_site_does_not_move_the_model_far(name: str, far: float) -> None:
    random = np.random.default_rng(6)
    honest = around(START, random, sites=6)
    models = np.stack([model.flat() for model, _ in honest])
    outlier = made_of(START.flat() + np.float32(far))

    after = strategy(name, malicious_sites=1).step_from_all(1, START, [*honest, (outlier, 1e7)]).flat()

    assert (after >= models.min(axis=0) - 1e-6).all()
    assert (after <= models.max(axis=0) + 1e-6).all()
    assert (mean_of([*honest, (outlier, 1e7)])[0].flat() > START.flat() + 0.9 * far).all()  # what a mean would have done


def test_multikrum_tells_sites_apart_whose_models_are_long_and_changes_small() -> None:
    """|x|^2 is 4e9 here and the honest models lie 1e-2 apart, far below what float32 sees of such a square."""
    random = np.random.default_rng(8)
    current = Weights.of({"w": random.normal(0, 200, 100_000)})
    honest = [current.plus(Weights.of({"w": random.normal(0, 2e-3, 100_000)})) for _ in range(6)]
    hostile = current.plus(Weights.of({"w": np.full(100_000, 0.05)}))

    after = strategy("multikrum", malicious_sites=1).step_from_all(1, current, [(m, 1.0) for m in (hostile, *honest)])

    assert abs(after.minus(current)["w"].mean()) < 1e-3
