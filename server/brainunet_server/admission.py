"""Which replies may enter the average: rules in order, the first that fails names the reason.

Two looks: each reply by itself as soon as it is here (:func:`admit`), and at the end of the round all that passed, beside
each other (:func:`outliers`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Annotated, Final

from pydantic import Field, FiniteFloat

from brainunet.config import Positive
from brainunet.records import AnyTask, EvaluateReply, Fault, FaultCode, Reply, TrainReply, TrainTask
from brainunet.settings import Settings

FEWEST_TO_COMPARE = 3  # the median of two is moved by either


class AdmissionConfig(Settings):
    """What a reply may claim.

    Attributes:
        norm_factor: an update longer than this many times the median of the round's updates is refused.
        model_factor: so is one longer than this many times the model it starts from (two sites have no telling median).
        max_cases: more cases than this at one site are not believed.
    """

    norm_factor: Annotated[FiniteFloat, Field(gt=1)] = 10.0
    model_factor: Positive = 10.0
    max_cases: Annotated[int, Field(ge=1, le=10_000_000)] = 5_000


Rule = Callable[[Reply, AnyTask, AdmissionConfig], str | None]


def admit(reply: Reply, task: AnyTask, limits: AdmissionConfig = AdmissionConfig()) -> str | None:  # noqa: B008 - frozen
    """None if the reply may be used, else the reason that the store and the site will show."""
    return next((problem for rule in RULES if (problem := rule(reply, task, limits))), None)


def outliers(norms: Mapping[str, float], limits: AdmissionConfig) -> dict[str, str]:
    """The sites whose update is too long beside the others', with the reason; fewer than three can't be compared.

    >>> outliers({"CRV": 1.0, "LASUTH": 1.25, "NKDC": 900.0}, AdmissionConfig())
    {'NKDC': 'an update of length 900, the median is 1.25 and the bound 10 times that'}
    """
    if len(norms) < FEWEST_TO_COMPARE:
        return {}
    middle = median(norms.values())
    bound = limits.norm_factor * middle
    return {
        site: f"an update of length {norm:.4g}, the median is {middle:.4g} and the bound {limits.norm_factor:g} times that"
        for site, norm in norms.items()
        if norm > bound > 0  # where most sites changed nothing there is no length to compare with
    }


def _answers_this_task(reply: Reply, task: AnyTask, limits: AdmissionConfig) -> str | None:
    if (reply.run, reply.round) == (task.run, task.round):
        return None
    if isinstance(reply, Fault) and reply.code is FaultCode.TASK_NOT_UNDERSTOOD:
        return None  # who can't read a task can't know its round
    return f"replies to round {reply.round} of run {reply.run}, asked was round {task.round} of run {task.run}"


def _is_of_the_kind_asked_for(reply: Reply, task: AnyTask, limits: AdmissionConfig) -> str | None:
    wanted = TrainReply if isinstance(task, TrainTask) else EvaluateReply
    if isinstance(reply, (wanted, Fault)):
        return None
    if isinstance(task, TrainTask) and task.privacy is not None and isinstance(reply, EvaluateReply) and reply.budget_spent:
        return None  # a site whose budget bears no more training only scores
    return f"sent {reply.kind}, asked was {wanted.model_fields['kind'].default}"


def _is_as_private_as_asked(reply: Reply, task: AnyTask, limits: AdmissionConfig) -> str | None:
    if not isinstance(reply, TrainReply) or not isinstance(task, TrainTask):
        return None
    if (reply.spend is None) != (task.privacy is None):
        return (
            "trained without privacy, asked was with it"
            if reply.spend is None
            else "trained under privacy, which was not asked"
        )
    if reply.spend is None or task.privacy is None:
        return None
    if reply.spend.delta > task.privacy.delta:
        return f"counts at delta {reply.spend.delta:g}, asked was {task.privacy.delta:g} at most"
    if reply.spend.epsilon > task.privacy.epsilon:
        return f"spent epsilon {reply.spend.epsilon:g} of this run, asked was {task.privacy.epsilon:g} at most"
    return None


def _has_plausible_cases(reply: Reply, task: AnyTask, limits: AdmissionConfig) -> str | None:
    if isinstance(reply, Fault):
        return None
    if isinstance(reply, TrainReply) and reply.cases.train == 0:
        return "trained on no case"
    cases = reply.cases.train + reply.cases.validation
    if cases > limits.max_cases:
        return f"claims {cases} cases, more than {limits.max_cases} are not believed"
    if reply.score.cases > reply.cases.validation:
        return f"scored {reply.score.cases} cases of {reply.cases.validation}"
    return None


def _tells_what_was_asked(reply: Reply, task: AnyTask, limits: AdmissionConfig) -> str | None:
    if isinstance(reply, Fault):
        return None
    unasked = sorted({row.metric for row in reply.score.rows} - set(task.validation.metrics))
    return f"tells {unasked[0]}, asked was {', '.join(task.validation.metrics)}" if unasked else None


def _has_the_layout_of_the_model(reply: Reply, task: AnyTask, limits: AdmissionConfig) -> str | None:
    if isinstance(reply, TrainReply) and reply.delta.layout != task.weights.layout:
        return "the update's names or shapes are not the model's"
    return None


def _is_finite(reply: Reply, task: AnyTask, limits: AdmissionConfig) -> str | None:
    return "the update holds NaN or infinite values" if isinstance(reply, TrainReply) and not reply.delta.is_finite() else None


def _is_no_longer_than_models_are(reply: Reply, task: AnyTask, limits: AdmissionConfig) -> str | None:
    # + 1: a model of zeros (a test's, or a network that starts so) has no length to measure by
    bound = limits.model_factor * (task.weights.norm + 1)
    if isinstance(reply, TrainReply) and (not math.isfinite(bound) or reply.delta.norm > bound):
        return f"an update of length {reply.delta.norm:.4g}, the bound for this model is {bound:.4g}"
    return None


RULES: Final[Sequence[Rule]] = (
    _answers_this_task,
    _is_of_the_kind_asked_for,
    _is_as_private_as_asked,
    _has_plausible_cases,
    _tells_what_was_asked,
    _has_the_layout_of_the_model,
    _is_finite,
    _is_no_longer_than_models_are,
)
