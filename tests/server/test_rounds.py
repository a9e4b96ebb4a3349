"""The rounds of a run, with sites that are plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from brainunet.errors import FederationError
from brainunet.records import AnyTask, EvaluateTask, Fault, FaultCode, Reply, TrainTask
from brainunet.weights import Weights
from brainunet_server.answers import Answer
from brainunet_server.rounds import Plan, RoundResult, SiteResult, Strategy, TooFewReplies, rounds
from tests.support.replies import PLAN, START, delta, evaluate_reply, site_score, train_reply

Responder = Callable[[AnyTask], Reply | None]


@dataclass
class SitesOfNumbers:
    """An exchange whose sites answer by a function each, in the order in which they are listed."""

    responders: Mapping[str, Responder]
    tasks: list[AnyTask] = field(default_factory=list)

    def is_member(self, site: str) -> bool:
        return True

    def sites(self) -> Sequence[str]:
        return list(self.responders)

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        self.tasks.append(task)
        for site in sites:
            reply = self.responders[site](task)
            if reply is None:
                yield Answer(site, None, bytes_down=100, problem="no reply in time")
            else:
                yield Answer(site, reply, bytes_down=100, bytes_up=50)


@dataclass(frozen=True)
class TakesTheMean:
    proximal_mu: float = 0.0
    needs_every_reply: bool = False

    def step(self, exchange: int, current: Weights, mean: Weights, cases: int) -> Weights:
        return mean

    def step_from_all(self, exchange: int, current: Weights, models: Sequence[tuple[Weights, float]]) -> Weights:
        """The model of the site with the largest share."""
        return max(models, key=lambda model: model[1])[0]

    def state(self) -> Weights | None:
        return None

    def restore(self, state: Weights) -> None:
        raise AssertionError("there is nothing to restore")


@dataclass(frozen=True)
class SumsAllModels(TakesTheMean):
    """Adds up what it gets in the order in which it gets it, so that another order shows."""

    needs_every_reply: bool = True

    def step_from_all(self, exchange: int, current: Weights, models: Sequence[tuple[Weights, float]]) -> Weights:
        made = delta(0.0)
        for model, share in models:
            made = made.plus(Weights.of({name: array * np.float32(share) for name, array in model.as_dict().items()}))
        return made


def adds(change: float | Weights, *, cases: int = 10, dice: float = 0.5) -> Responder:
    """A site whose training changes every weight by the same."""

    def respond(task: AnyTask) -> Reply:
        if isinstance(task, EvaluateTask):
            return evaluate_reply(round=task.round, score=site_score(dice))
        return train_reply(change, cases=cases, round=task.round, score=site_score(dice))

    return respond


def says(reply: Reply | None) -> Responder:
    return lambda task: reply


def run(
    plan: Plan,
    exchange: SitesOfNumbers,
    strategy: Strategy = TakesTheMean(),
    *,
    done: int = 0,
    start: Weights = START,
) -> list[RoundResult]:
    with TemporaryDirectory() as folder:
        return list(rounds(plan, start, done, exchange, strategy, Path(folder) / "replies"))


def made_by(result: RoundResult) -> dict[str, object]:
    assert result.weights is not None
    return {name: array.tolist() for name, array in result.weights.as_dict().items()}


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


@pytest.mark.parametrize(
    ("bad", "outcome", "reason"),
    [
        (train_reply(NAN), "refused", "the update holds NaN or infinite values"),
        (train_reply(Weights.of({"kernel": np.zeros(9)})), "refused", "the update's names or shapes are not the model's"),
        (train_reply(1.0, round=2), "refused", "replies to round 2 of run glioma-1, asked was round 1 of run glioma-1"),
        (train_reply(1.0, run="other"), "refused", "replies to round 1 of run other, asked was round 1 of run glioma-1"),
        (evaluate_reply(round=1), "refused", "sent evaluate_reply, asked was train_reply"),
        (train_reply(1.0, cases=0), "refused", "trained on no case"),
        (Fault(run=PLAN.run, round=1, code=FaultCode.OUT_OF_MEMORY), "fault", "out_of_memory"),
        (None, "absent", "no reply in time"),
    ],
)
def test_one_site_s_bad_reply_is_named_and_the_run_goes_on_without_it(bad: Reply | None, outcome: str, reason: str) -> None:
    plan = replace(PLAN, rounds=1)
    exchange = SitesOfNumbers({"BAD": says(bad), "CRV": adds(1.0), "NKDC": adds(3.0)})

    first, last = run(plan, exchange)

    named = first.sites[0]
    assert (named.site, named.outcome, named.reason) == ("BAD", outcome, reason)
    assert (named.cases, named.score, named.loss) == (None, None, None)
    assert made_by(first) == {"kernel": [[3.0, 4.0], [5.0, 6.0]], "bias": [2.5]}
    assert [site.outcome for site in last.sites[1:]] == ["answered", "answered"]


def test_bytes_that_could_not_be_read_are_refused_and_not_called_absent() -> None:
    class Unreadable(SitesOfNumbers):
        def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
            yield Answer("BAD", None, bytes_down=100, problem="message: a header that is not JSON.", unreadable=True)
            yield from super().ask(task, [site for site in sites if site != "BAD"])

    first, _ = run(replace(PLAN, rounds=1), Unreadable({"BAD": says(None), "CRV": adds(1.0)}))

    assert (first.sites[0].outcome, first.sites[0].reason) == ("refused", "message: a header that is not JSON.")


@pytest.mark.parametrize("min_sites", [0, 1, 2, 3])
def test_too_few_usable_replies_end_the_run_and_say_why(min_sites: int, tmp_path: Path) -> None:
    plan = replace(PLAN, min_sites=min_sites)
    fault = Fault(run=PLAN.run, round=2, code=FaultCode.DISK_FULL)

    def fails_later(task: AnyTask) -> Reply | None:
        return adds(1.0)(task) if task.round == 1 else fault

    exchange = SitesOfNumbers({"CRV": fails_later, "LASUTH": fails_later, "NKDC": fails_later})
    steps = rounds(plan, START, 0, exchange, TakesTheMean(), tmp_path)

    assert next(steps).weights is not None  # what was complete was handed out before
    with pytest.raises(FederationError) as raised:
        next(steps)
    message = str(raised.value)
    assert message.startswith("round 2: 0 usable replies of 3 (CRV: disk_full; LASUTH: disk_full; NKDC: disk_full)")
    assert f"expected at least {max(1, min_sites)}." in message
    assert "resume the run" in message
    assert message.count("disk_full means: the disk is full (the site makes room)") == 1  # a code alone teaches nobody


def test_the_number_of_sites_that_are_needed_is_enough() -> None:
    exchange = SitesOfNumbers({"CRV": adds(1.0), "LASUTH": adds(1.0), "NKDC": says(None)})

    assert len(run(replace(PLAN, min_sites=2), exchange)) == 3
    with pytest.raises(FederationError, match=r"2 usable replies of 3 .*NKDC: no reply in time.*expected at least 3"):
        run(replace(PLAN, min_sites=3), exchange)


def test_without_any_site_there_is_no_round() -> None:
    with pytest.raises(FederationError, match="no site could be asked"):
        run(PLAN, SitesOfNumbers({}))


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


def test_an_update_far_longer_than_the_others_is_refused_at_the_end_and_its_figures_are_not_told() -> None:
    sites = {"CRV": adds(1.0), "FAR": adds(25.0, dice=0.99), "LASUTH": adds(1.0), "NKDC": adds(2.0)}

    first, last = run(replace(PLAN, rounds=1), SitesOfNumbers(sites))

    far = first.sites[1]
    assert (far.site, far.outcome, far.score) == ("FAR", "refused", None)
    assert far.reason == "an update of length 55.9, the median is 3.354 and the bound 10 times that"
    assert far.update_norm == pytest.approx(25 * 5**0.5)
    assert made_by(first)["bias"] == pytest.approx([0.5 + 4 / 3])
    assert last.sites[1].outcome == "answered"


def test_refused_updates_do_not_count_for_the_number_of_sites_that_are_needed() -> None:
    sites = {"CRV": adds(1.0), "FAR": adds(25.0), "LASUTH": adds(1.0)}

    assert len(run(replace(PLAN, rounds=1, min_sites=2), SitesOfNumbers(sites))) == 2
    with pytest.raises(TooFewReplies, match=r"2 usable replies of 3 \(FAR: an update of length 55\.9.*expected at least 3"):
        run(replace(PLAN, rounds=1, min_sites=3), SitesOfNumbers(sites))


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


def test_too_few_replies_carry_what_each_site_did() -> None:
    fault = Fault(run=PLAN.run, round=1, code=FaultCode.DISK_FULL)

    with pytest.raises(TooFewReplies) as raised:
        run(replace(PLAN, min_sites=2), SitesOfNumbers({"NKDC": adds(1.0), "CRV": says(fault), "LASUTH": says(None)}))

    result = raised.value.result
    assert (result.exchange, result.weights) == (1, None)
    assert [(site.site, site.outcome, site.reason) for site in result.sites] == [
        ("CRV", "fault", "disk_full"),
        ("LASUTH", "absent", "no reply in time"),
        ("NKDC", "answered", None),
    ]
    assert isinstance(result.sites[2], SiteResult)
    assert result.sites[2].score == site_score()


def test_a_site_that_was_revoked_after_it_answered_is_not_in_the_mean() -> None:
    class Revoking(SitesOfNumbers):
        def is_member(self, site: str) -> bool:
            return site != "NKDC"

    first, _ = run(replace(PLAN, rounds=1), Revoking({"CRV": adds(1.0), "NKDC": adds(3.0)}))

    assert (first.sites[1].outcome, first.sites[1].reason) == ("refused", "it is no longer a member")
    assert made_by(first) == {"kernel": [[2.0, 3.0], [4.0, 5.0]], "bias": [1.5]}
