"""The rounds of a run, on plain data: ask the sites, admit their replies, fold them into a mean, take the server's step.

Knows neither Flower nor the database: an :class:`~brainunet_server.answers.Exchange` carries tasks to sites, a
:class:`Strategy` turns what they sent into the next model, and the caller keeps what :func:`rounds` yields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from shutil import rmtree
from typing import Protocol

from brainunet.config import Local, ModelConfig, PreprocessConfig, PrivacyConfig, TrainConfig, ValidationConfig
from brainunet.records import AnyTask, EvaluateReply, EvaluateTask, Fault, FaultCode, TrainReply, TrainTask
from brainunet.weights import WeightedMean, Weights
from brainunet_server.admission import AdmissionConfig, admit, outliers
from brainunet_server.answers import Answer, Exchange
from brainunet_server.replies import Replies
from brainunet_server.round_results import LastingFaults, RoundResult, SiteResult, TooFewReplies
from brainunet_server.shares import shares
from brainunet_server.site_faults import lasting_only


@dataclass(frozen=True)
class Plan:
    """What a run is about to do; the shared configuration travels in each task.

    Attributes:
        deadline_s: how long the sites have for one exchange; None waits for all.
        max_site_share: see ``brainunet_server.shares``.
        privacy: what the sites hide their cases behind, with the number of rounds; None trains without.
        durable: replies on disk outlive a power cut, and a server killed in mid-round does not ask for them again.
        demo: sites may take part with made-up cases.
    """

    run: str
    rounds: int
    min_sites: int
    seed: int
    model: ModelConfig
    preprocess: PreprocessConfig
    train: TrainConfig
    validation: ValidationConfig
    deadline_s: int | None = None
    max_site_share: float = 1.0
    local: Local = "none"
    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    privacy: PrivacyConfig | None = None
    durable: bool = False
    demo: bool = False


class Strategy(Protocol):
    """The server's step. ``needs_every_reply`` decides which of the two it takes."""

    @property
    def proximal_mu(self) -> float: ...

    @property
    def needs_every_reply(self) -> bool: ...

    def step(self, exchange: int, current: Weights, mean: Weights, cases: int) -> Weights:
        """The next model from the current one and the weighted mean of the sites' models, trained on ``cases``."""

    def step_from_all(self, exchange: int, current: Weights, models: Sequence[tuple[Weights, float]]) -> Weights:
        """The next model from the current one and every site's model with its share."""

    def state(self) -> Weights | None:
        """What the strategy remembers from earlier rounds, None for nothing."""

    def restore(self, state: Weights) -> None:
        """Go on from a kept state."""


def rounds(
    plan: Plan, start: Weights, done: int, exchange: Exchange, strategy: Strategy, replies: Path
) -> Iterator[RoundResult]:
    """Run the exchanges after ``done`` complete rounds, from the model ``start`` that they made; the last one only scores.

    Args:
        replies: a folder for the replies of the exchange in progress.

    Raises:
        TooFewReplies: fewer than ``plan.min_sites`` sites with a usable reply.
        LastingFaults: so, for a reason that the next attempt would meet again.
        BrainUNetError: the disk is full.
    """
    weights = start
    for number in range(done + 1, plan.rounds + 1):
        result = _train(plan, number, weights, exchange, strategy, replies)
        yield result
        assert result.weights is not None
        weights = result.weights  # whoever asked for the next round has kept this one, so its replies may go
    rmtree(replies, ignore_errors=True)
    task = EvaluateTask(
        run=plan.run,
        round=plan.rounds + 1,
        model=plan.model,
        preprocess=plan.preprocess,
        validation=plan.validation,
        answer_within_s=plan.deadline_s,
        local=plan.local,
        demo=plan.demo,
        weights=weights,
    )
    results = [_result(answer, task, plan.admission) for answer in exchange.ask(task, exchange.sites())]
    _require_enough(plan, task.round, results)
    yield RoundResult(task.round, _by_name(results), None)


def _train(plan: Plan, number: int, weights: Weights, exchange: Exchange, strategy: Strategy, folder: Path) -> RoundResult:
    task = TrainTask(
        run=plan.run,
        round=number,
        model=plan.model,
        preprocess=plan.preprocess,
        train=plan.train,
        privacy=plan.privacy,
        validation=plan.validation,
        seed=plan.seed,
        proximal_mu=strategy.proximal_mu,
        answer_within_s=plan.deadline_s,
        local=plan.local,
        demo=plan.demo,
        weights=weights,
    )
    replies = Replies(folder, task, durable=plan.durable)
    kept = {answer.site: answer for answer in replies.kept()} if plan.durable else {}
    sites = [site for site in exchange.sites() if site not in kept]
    results: dict[str, SiteResult] = {}
    for answer in chain(kept.values(), exchange.ask(task, sites)):
        result = _result(answer, task, plan.admission)
        results[answer.site] = result
        # put down at once and let go: memory does not grow with the number of sites
        if result.outcome == "answered" and isinstance(answer.reply, TrainReply) and answer.site not in kept:
            replies.keep(answer, answer.reply)
    answered = [site for site, result in results.items() if result.outcome == "answered"]
    gone = {site: "it is no longer a member" for site in answered if not exchange.is_member(site)}
    for refused in (gone, outliers(_norms({k: v for k, v in results.items() if k not in gone}), plan.admission)):
        for site, reason in refused.items():
            results[site] = replace(results[site], outcome="refused", reason=reason, score=None)
            replies.drop(site)
    _require_enough(plan, number, results.values())
    following = _step(plan, number, weights, strategy, replies, results)
    return RoundResult(number, _by_name(results.values()), following)


def _step(
    plan: Plan, number: int, weights: Weights, strategy: Strategy, replies: Replies, results: Mapping[str, SiteResult]
) -> Weights:
    # in the order of names and not of arrival, so that equal replies make an equal model
    cases = {site: r.cases.train for site, r in sorted(results.items()) if r.outcome == "answered" and r.cases is not None}
    weighing = shares(cases, plan.max_site_share)
    if strategy.needs_every_reply:
        return strategy.step_from_all(
            number, weights, [(weights.plus(replies.delta(site)), share) for site, share in weighing.items()]
        )
    return strategy.step(number, weights, weights.plus(_mean(replies, weighing)), cases=sum(cases.values()))


def _mean(replies: Replies, weighing: Mapping[str, float]) -> Weights:
    mean = WeightedMean()
    for site, share in weighing.items():
        mean.fold(replies.delta(site), weight=share)
    return mean.result()


def _norms(results: Mapping[str, SiteResult]) -> dict[str, float]:
    return {
        site: result.update_norm
        for site, result in results.items()
        if result.outcome == "answered" and result.update_norm is not None
    }


def _require_enough(plan: Plan, number: int, results: Iterable[SiteResult]) -> None:
    result = RoundResult(number, _by_name(results), None)
    usable, needed = sum(site.outcome == "answered" for site in result.sites), max(1, plan.min_sites)
    if usable < needed:
        if fault := lasting_only(((site.outcome, site.reason) for site in result.sites), needed):
            raise LastingFaults(result, fault)
        raise TooFewReplies(result, usable, needed)


def _by_name(results: Iterable[SiteResult]) -> tuple[SiteResult, ...]:
    return tuple(sorted(results, key=lambda result: result.site))


def _result(answer: Answer, task: AnyTask, limits: AdmissionConfig) -> SiteResult:
    reply = answer.reply
    empty = SiteResult(answer.site, "absent", answer.problem, bytes_down=answer.bytes_down, bytes_up=answer.bytes_up)
    if reply is None:
        return replace(empty, outcome="refused" if answer.unreadable else "absent")
    trained = reply if isinstance(reply, TrainReply) else None
    if trained and (trained.run, trained.round) == (task.run, task.round):
        empty = replace(empty, spend=trained.spend)
    if problem := admit(reply, task, limits):
        return replace(empty, outcome="refused", reason=problem)
    if isinstance(reply, Fault):
        return replace(empty, outcome="fault", reason=reply.code.value)
    if isinstance(reply, EvaluateReply) and isinstance(task, TrainTask):
        return replace(
            empty,
            outcome="fault",
            reason=FaultCode.BUDGET_SPENT.value,
            cases=reply.cases,
            score=reply.score,
            client_version=reply.client_version,
        )
    return replace(
        empty,
        outcome="answered",
        cases=reply.cases,
        score=reply.score,
        loss=trained.loss if trained else None,
        seconds=reply.seconds,
        client_version=reply.client_version,
        update_norm=trained.delta.norm if trained else None,
        update_digest=answer.digest,
    )
