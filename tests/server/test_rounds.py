"""The rounds of a run, with sites that are plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from brainunet.records import EvaluateTask, TrainTask
from brainunet.weights import Weights
from brainunet_server.rounds import rounds
from tests.support.number_sites import SitesOfNumbers, TakesTheMean, adds, made_by, run, says
from tests.support.replies import PLAN, START, delta, site_score, train_reply


@dataclass(frozen=True)
class SumsAllModels(TakesTheMean):
    """Adds up what it gets in the order in which it gets it, so that another order shows."""

    needs_every_reply: bool = True

    def step_from_all(self, exchange: int, current: Weights, models: Sequence[tuple[Weights, float]]) -> Weights:
        made = delta(0.0)
        for model, share in models:
            made = made.plus(Weights.of({name: array * np.float32(share) for name, array in model.as_dict().items()}))
        return made


def test_each_round_adds_the_mean_of_the_changes_weighted_by_cases() -> None:
    exchange = SitesOfNumbers({"CRV": adds(1.0, cases=30), "LASUTH": adds(-2.0, cases=10)})

    results = run(PLAN, exchange)

    # (30 * 1 + 10 * -2) / 40 = 0.25 a round
    assert made_by(results[0]) == {"kernel": [[1.25, 2.25], [3.25, 4.25]], "bias": [0.75]}
    assert made_by(results[1]) == {"kernel": [[1.5, 2.5], [3.5, 4.5]], "bias": [1.0]}
    assert [result.exchange for result in results] == [1, 2, 3]


def test_every_round_sends_the_model_that_the_one_before_made_and_the_last_exchange_only_scores() -> None:
    exchange = SitesOfNumbers({"CRV": adds(1.0)})

    results = run(PLAN, exchange)

    first, second, last = exchange.tasks
    assert [type(task) for task in exchange.tasks] == [TrainTask, TrainTask, EvaluateTask]
    assert [task.round for task in exchange.tasks] == [1, 2, 3]
    assert first.weights is START
    assert second.weights is results[0].weights
    assert last.weights is results[1].weights
    assert results[2].weights is None
    assert results[2].sites[0].score == site_score()
    assert results[2].sites[0].loss is None


def test_a_run_of_no_rounds_scores_the_model_it_starts_from() -> None:
    exchange = SitesOfNumbers({"CRV": adds(1.0)})

    (result,) = run(replace(PLAN, rounds=0), exchange)

    assert isinstance(exchange.tasks[0], EvaluateTask)
    assert (result.exchange, result.weights) == (1, None)


def test_a_run_taken_up_after_a_round_ends_as_if_it_had_not_stopped() -> None:
    sites = {"CRV": adds(1.0, cases=3), "NKDC": adds(0.1, cases=7)}
    whole = run(PLAN, SitesOfNumbers(sites))
    middle = whole[0].weights
    assert middle is not None

    rest = run(PLAN, SitesOfNumbers(sites), done=1, start=middle)

    assert [result.exchange for result in rest] == [2, 3]
    assert made_by(rest[0]) == made_by(whole[1])


def test_the_task_carries_what_the_plan_and_the_strategy_say(tmp_path: Path) -> None:
    exchange = SitesOfNumbers({"CRV": adds(1.0)})

    list(rounds(replace(PLAN, demo=True), START, 0, exchange, TakesTheMean(proximal_mu=0.25), tmp_path))

    assert [task.demo for task in exchange.tasks] == [True] * len(exchange.tasks)  # the last one, that only scores, too
    task = exchange.tasks[0]
    assert isinstance(task, TrainTask)
    assert (task.run, task.seed, task.proximal_mu) == (PLAN.run, PLAN.seed, 0.25)
    assert (task.model, task.preprocess, task.train) == (PLAN.model, PLAN.preprocess, PLAN.train)


def test_a_result_says_what_each_site_did_in_the_order_of_their_names() -> None:
    sites = {"NKDC": adds(1.0), "CRV": says(None), "LASUTH": adds(1.0, dice=0.75)}

    for result in run(replace(PLAN, rounds=1), SitesOfNumbers(sites)):
        assert [site.site for site in result.sites] == ["CRV", "LASUTH", "NKDC"]
        crv, lasuth, _ = result.sites
        assert (crv.outcome, crv.reason, crv.cases, crv.score) == ("absent", "no reply in time", None, None)
        assert (lasuth.outcome, lasuth.reason, lasuth.score) == ("answered", None, site_score(0.75))
        assert lasuth.cases is not None
        assert (lasuth.cases.train, lasuth.cases.validation, lasuth.client_version) == (10, 4, "0.1.0")
        assert (lasuth.bytes_down, lasuth.bytes_up) == (100, 50)


NAN = Weights.of({name: np.full(shape, np.nan) for name, shape in START.layout})


@pytest.mark.parametrize("cap", [1.0, 0.3])
@pytest.mark.parametrize("every_reply", [False, True])
def test_equal_answers_make_a_model_equal_to_the_bit_in_whatever_order_they_come(every_reply: bool, cap: float) -> None:
    rng = np.random.default_rng(0)
    sites = {
        f"S{i}": adds(
            Weights.of({name: rng.normal(size=shape) for name, shape in START.layout}), cases=int(rng.integers(1, 60))
        )
        for i in range(5)
    }
    plan = replace(PLAN, rounds=2, max_site_share=cap)
    strategy = SumsAllModels() if every_reply else TakesTheMean()

    made = set()
    for order in (list(sites), list(reversed(sites)), ["S2", "S4", "S0", "S1", "S3"]):
        results = run(plan, SitesOfNumbers({site: sites[site] for site in order}), strategy)
        made.add(tuple(result.weights.digest for result in results if result.weights is not None))

    assert len(made) == 1


def test_one_site_alone_gets_its_own_weights_back() -> None:
    change = delta(0.125)

    (first, _) = run(replace(PLAN, rounds=1), SitesOfNumbers({"CRV": adds(change, cases=3)}))

    assert first.weights is not None
    assert first.weights.digest == START.plus(change).digest
    assert {array.dtype for array in first.weights.arrays} == {np.dtype(np.float32)}


def test_no_site_weighs_more_than_the_cap_says() -> None:
    sites = {"BIG": adds(1.0, cases=800), "CRV": adds(0.0, cases=10), "NKDC": adds(-1.0, cases=10)}

    (free, _) = run(replace(PLAN, rounds=1), SitesOfNumbers(sites))
    (capped, _) = run(replace(PLAN, rounds=1, max_site_share=0.5), SitesOfNumbers(sites))

    assert made_by(free)["bias"] == pytest.approx([0.5 + 790 / 820])
    assert made_by(capped)["bias"] == pytest.approx([0.5 + 0.5 - 0.25])


@dataclass(frozen=True)
class Watches(TakesTheMean):
    """A strategy that notes what it is given."""

    needs_every_reply: bool = True
    given: list[tuple[int, Weights, list[tuple[Weights, float]]]] = field(default_factory=list)

    def step_from_all(self, exchange: int, current: Weights, models: Sequence[tuple[Weights, float]]) -> Weights:
        self.given.append((exchange, current, list(models)))
        return models[0][0]


def test_a_strategy_that_needs_every_reply_gets_each_admitted_sites_model_and_its_share() -> None:
    sites = {"NKDC": adds(3.0, cases=30), "BAD": says(None), "CRV": adds(1.0, cases=10), "NAN": says(train_reply(NAN))}
    strategy = Watches()

    run(replace(PLAN, rounds=1), SitesOfNumbers(sites), strategy)

    ((exchange, current, models),) = strategy.given
    assert (exchange, current.digest) == (1, START.digest)
    assert [(model.digest, share) for model, share in models] == [
        (START.plus(delta(1.0)).digest, 10.0),
        (START.plus(delta(3.0)).digest, 30.0),
    ]
