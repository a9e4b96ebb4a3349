"""Which replies may enter the average: rules in order, the first that fails names the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from brainunet.records import AnyTask, EvaluateReply, Fault, Reply, TrainReply, TrainTask

Rule = Callable[[Reply, AnyTask], str | None]


def admit(reply: Reply, task: AnyTask) -> str | None:
    """None if the reply may be used, else the reason that the store and the site will show."""
    return next((problem for rule in RULES if (problem := rule(reply, task))), None)


def _answers_this_task(reply: Reply, task: AnyTask) -> str | None:
    if (reply.run, reply.round) == (task.run, task.round):
        return None
    return f"replies to round {reply.round} of run {reply.run}, asked was round {task.round} of run {task.run}"


def _is_of_the_kind_asked_for(reply: Reply, task: AnyTask) -> str | None:
    wanted = TrainReply if isinstance(task, TrainTask) else EvaluateReply
    if isinstance(reply, (wanted, Fault)):
        return None
    return f"sent {reply.kind}, asked was {wanted.model_fields['kind'].default}"


def _has_cases(reply: Reply, task: AnyTask) -> str | None:
    del task
    return "trained on no case" if isinstance(reply, TrainReply) and reply.cases.train == 0 else None


def _has_the_layout_of_the_model(reply: Reply, task: AnyTask) -> str | None:
    if isinstance(reply, TrainReply) and reply.delta.layout != task.weights.layout:
        return "the update's names or shapes are not the model's"
    return None


def _is_finite(reply: Reply, task: AnyTask) -> str | None:
    del task
    return "the update holds NaN or infinite values" if isinstance(reply, TrainReply) and not reply.delta.is_finite() else None


RULES: Final[Sequence[Rule]] = (
    _answers_this_task,
    _is_of_the_kind_asked_for,
    _has_cases,
    _has_the_layout_of_the_model,
    _is_finite,
)
