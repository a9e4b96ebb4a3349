"""Sites that are plain numbers, and a strategy that takes their mean: the rounds of a run without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from brainunet.records import AnyTask, EvaluateTask, Reply
from brainunet.weights import Weights
from brainunet_server.answers import Answer
from brainunet_server.round_results import RoundResult
from brainunet_server.rounds import Plan, Strategy, rounds
from tests.support.replies import START, evaluate_reply, site_score, train_reply

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
