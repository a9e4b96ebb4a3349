"""The rounds of a run, on plain data: ask the sites, admit their replies, fold them into a mean, take the server's step.

Knows neither Flower nor the database: an :class:`Exchange` carries tasks to sites, a :class:`Strategy` turns the mean into the
next model, and the caller keeps what :func:`rounds` yields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from brainunet.config import ModelConfig, PreprocessConfig, TrainConfig, ValidationConfig
from brainunet.errors import FederationError
from brainunet.records import AnyTask, CaseCounts, EvaluateTask, Fault, Reply, SiteScore, TrainReply, TrainTask
from brainunet.weights import WeightedMean, Weights
from brainunet_server.admission import admit


@dataclass(frozen=True)
class Plan:
    """What a run is about to do; the shared configuration travels in each task."""

    run: str
    rounds: int
    min_sites: int
    seed: int
    model: ModelConfig
    preprocess: PreprocessConfig
    train: TrainConfig
    validation: ValidationConfig


@dataclass(frozen=True)
class Answer:
    """What came back from a site: its reply, or None and why there is none; ``unreadable`` if something did come back."""

    site: str
    reply: Reply | None
    bytes_down: int = 0
    bytes_up: int = 0
    problem: str | None = None
    unreadable: bool = False


class Exchange(Protocol):
    """Carries one task to many sites."""

    def sites(self) -> Sequence[str]:
        """The sites that can be asked now."""

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        """Answers as they arrive, one for each site that was asked."""


class Strategy(Protocol):
    """The server's step."""

    @property
    def proximal_mu(self) -> float: ...

    def step(self, exchange: int, current: Weights, mean: Weights, cases: int) -> Weights:
        """The next model from the current one and the weighted mean of the sites' models, trained on ``cases``."""


@dataclass(frozen=True)
class SiteResult:
    """What one site did in one exchange, and how it scored the model it was sent."""

    site: str
    outcome: Literal["answered", "fault", "refused", "absent"]
    reason: str | None = None
    cases: CaseCounts | None = None
    score: SiteScore | None = None
    loss: float | None = None
    seconds: float | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    client_version: str | None = None


@dataclass(frozen=True)
class RoundResult:
    """One exchange; ``weights`` is the model it made, None for the last exchange, which only scores."""

    exchange: int
    sites: tuple[SiteResult, ...]
    weights: Weights | None


def rounds(plan: Plan, start: Weights, done: int, exchange: Exchange, strategy: Strategy) -> Iterator[RoundResult]:
    """Run the exchanges after ``done`` complete rounds, from the model ``start`` that they made; the last one only scores.

    Raises:
        FederationError: fewer than ``plan.min_sites`` sites with a usable reply.
    """
    weights = start
    for number in range(done + 1, plan.rounds + 1):
        result = _train(plan, number, weights, exchange, strategy)
        yield result
        assert result.weights is not None
        weights = result.weights
    task = EvaluateTask(
        run=plan.run,
        round=plan.rounds + 1,
        model=plan.model,
        preprocess=plan.preprocess,
        validation=plan.validation,
        weights=weights,
    )
    results = [_result(answer, task) for answer in exchange.ask(task, exchange.sites())]
    _require_enough(plan, task.round, results)
    yield RoundResult(task.round, _by_name(results), None)


def _train(plan: Plan, number: int, weights: Weights, exchange: Exchange, strategy: Strategy) -> RoundResult:
    task = TrainTask(
        run=plan.run,
        round=number,
        model=plan.model,
        preprocess=plan.preprocess,
        train=plan.train,
        validation=plan.validation,
        seed=plan.seed,
        proximal_mu=strategy.proximal_mu,
        weights=weights,
    )
    results: list[SiteResult] = []
    mean = WeightedMean()
    for answer in exchange.ask(task, exchange.sites()):
        results.append(_result(answer, task))
        # folded at once and let go: memory does not grow with the number of sites
        if results[-1].outcome == "answered" and isinstance(answer.reply, TrainReply):
            mean.fold(answer.reply.delta, weight=answer.reply.cases.train)
    _require_enough(plan, number, results)
    following = strategy.step(number, weights, weights.plus(mean.result()), cases=int(mean.total))
    return RoundResult(number, _by_name(results), following)


def _require_enough(plan: Plan, number: int, results: Sequence[SiteResult]) -> None:
    answered = sum(result.outcome == "answered" for result in results)
    if answered < max(1, plan.min_sites):
        reasons = "; ".join(f"{r.site}: {r.reason}" for r in results if r.reason) or "no site could be asked"
        raise FederationError(
            f"round {number}",
            found=f"{answered} usable replies of {len(results)} ({reasons})",
            expected=f"at least {max(1, plan.min_sites)}",
            remedy="mend the sites named, then resume the run: complete rounds are kept",
        )


def _by_name(results: Iterable[SiteResult]) -> tuple[SiteResult, ...]:
    return tuple(sorted(results, key=lambda result: result.site))


def _result(answer: Answer, task: AnyTask) -> SiteResult:
    reply = answer.reply
    empty = SiteResult(answer.site, "absent", answer.problem, bytes_down=answer.bytes_down, bytes_up=answer.bytes_up)
    if reply is None:
        return replace(empty, outcome="refused" if answer.unreadable else "absent")
    if problem := admit(reply, task):
        return replace(empty, outcome="refused", reason=problem)
    if isinstance(reply, Fault):
        return replace(empty, outcome="fault", reason=reply.code.value)
    return replace(
        empty,
        outcome="answered",
        cases=reply.cases,
        score=reply.score,
        loss=reply.loss if isinstance(reply, TrainReply) else None,
        seconds=reply.seconds,
        client_version=reply.client_version,
    )
