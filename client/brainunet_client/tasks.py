"""What a site does with a task. Pure of Flower: a task and a site in, a reply out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import nn

from brainunet import __version__
from brainunet.config import sha256_of
from brainunet.data.preprocess import PreparedCase
from brainunet.errors import DataError
from brainunet.inference.predictor import predict_labels
from brainunet.metrics.report import score_case
from brainunet.metrics.summary import site_score
from brainunet.model import build, default_device, set_weights, weights_of
from brainunet.records import (
    AnyTask,
    Case,
    CaseCounts,
    CaseScore,
    EvaluateReply,
    EvaluateTask,
    SiteScore,
    TrainReply,
    TrainTask,
)
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import train as train_network
from brainunet.training.seeds import derive
from brainunet_client.site import Site

log = logging.getLogger(__name__)

OnStep: TypeAlias = Callable[[int, float], None]  # steps done, last loss


def train(task: TrainTask, site: Site, on_step: OnStep = lambda step, loss: None) -> TrainReply:
    """Score the received weights on the validation cases, then train from them and reply with the difference.

    The optimizer starts afresh each round, so a round depends on nothing but the task, the cases and the seed.

    Raises:
        DataError: no case to train on can be read.
        ConfigError: the weights don't fit the network that the task names.
        TrainingDivergedError: the loss is no longer a number.
    """
    started = time.monotonic()
    network = _network(task)
    score = _score(network, task, site)
    cases = _prepared(site.train, task, site)
    if not cases:
        raise DataError(site.name, found="no case to train on", expected="at least one")
    checkpoint = checkpoint_of(task, site)
    trained = train_network(
        network,
        cases,
        task.train,
        seed=derive(task.seed, site.name, task.round),
        proximal_mu=task.proximal_mu,
        checkpoint=checkpoint,
        on_step=on_step,
    )
    reply = TrainReply(
        run=task.run,
        round=task.round,
        delta=weights_of(network).minus(task.weights),
        cases=CaseCounts(train=len(cases), validation=score.cases),
        score=score,
        loss=trained.mean_loss,
        seconds=time.monotonic() - started,
        client_version=__version__,
    )
    checkpoint.remove()
    return reply


def checkpoint_of(task: TrainTask, site: Site) -> Checkpoint:
    """Where this training is kept, good for it alone: same task, same cases, same program."""
    cases = " ".join(case.case_id for case in site.train)
    settings = " ".join(map(sha256_of, (task.model, task.preprocess, task.train)))
    purpose = f"{task.run} {task.round} {task.seed} {task.proximal_mu} {task.weights.digest} {settings}"
    return Checkpoint(site.work / "training.ckpt", f"{__version__} {site.name} {purpose} {cases}")


def evaluate(task: EvaluateTask, site: Site) -> EvaluateReply:
    """Score the received weights on the validation cases.

    Raises:
        ConfigError: the weights don't fit the network that the task names.
    """
    started = time.monotonic()
    score = _score(_network(task), task, site)
    return EvaluateReply(
        run=task.run,
        round=task.round,
        cases=CaseCounts(train=len(site.train), validation=score.cases),
        score=score,
        seconds=time.monotonic() - started,
        client_version=__version__,
    )


def do(task: AnyTask, site: Site, on_step: OnStep = lambda step, loss: None) -> TrainReply | EvaluateReply:
    return train(task, site, on_step) if isinstance(task, TrainTask) else evaluate(task, site)


def _network(task: AnyTask) -> nn.Module:
    network = build(task.model).to(default_device())
    set_weights(network, task.weights)
    return network


def _score(network: nn.Module, task: AnyTask, site: Site) -> SiteScore:
    scores: list[CaseScore] = []
    for case in site.validation:
        for prepared in _prepared([case], task, site):
            assert prepared.label is not None
            scores.append(
                score_case(case.case_id, predict_labels(network, prepared.image, task.validation.window), prepared.label)
            )
    return site_score(scores)


def _prepared(cases: Sequence[Case], task: AnyTask, site: Site) -> list[PreparedCase]:
    """The cases that can be read; the others are named in the site's own log."""
    usable: list[PreparedCase] = []
    for case in cases:
        try:
            usable.append(site.cache.get(case, task.model.modalities, task.preprocess))
        except DataError as error:
            log.warning("skipped: %s", error)
    return usable
