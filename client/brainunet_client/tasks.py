"""What a site does with a task. Pure of Flower: a task and a site in, a reply out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import nn

from brainunet import __version__
from brainunet.data.preprocess import PreparedCase
from brainunet.errors import DataError, PrivacyError
from brainunet.inference.predictor import predict_labels
from brainunet.metrics.report import score_case
from brainunet.metrics.summary import site_score
from brainunet.model import build, default_device, set_weights, weights_of
from brainunet.model.normalisation import norm_names
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
from brainunet.settings import sha256_of
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import train as train_network
from brainunet.training.seeds import derive
from brainunet.weights import Weights
from brainunet_client.kept_norm import keep_norm, with_kept_norm, without
from brainunet_client.site import Site
from brainunet_client.stopping import KeepGoing, require_going, watched

log = logging.getLogger(__name__)

OnStep: TypeAlias = Callable[[int, float], None]  # steps done, last loss


def train(
    task: TrainTask,
    site: Site,
    on_step: OnStep = lambda step, loss: None,
    keep_going: KeepGoing = lambda: True,
) -> TrainReply:
    """Score the received weights on the validation cases, then train from them and reply with the difference.

    The optimizer starts afresh each round, so a round depends on nothing but the task, the cases and the seed (and, where
    ``task.local`` says so, on the site's own normalisation; the difference is then exactly zero there).

    Args:
        on_step: told the number of steps done and the last loss.
        keep_going: asked before every case and after every step; where it says no, the training is saved and stopped, and
            goes on from there when the same task comes again.

    Raises:
        DataError: no case to train on can be read.
        ConfigError: the weights don't fit the network that the task names.
        PrivacyError: the task, or the site, is a private one (see ``private_round``).
        TrainingDivergedError: the loss is no longer a number.
        Stopped: the site must stop.
    """
    if task.privacy is not None or site.privacy is not None:
        raise PrivacyError("the task", found="a private one in a training that is not", remedy="use do, which tells them apart")
    started = time.monotonic()
    network, local, start = network_for(task, site)
    score = score_of(network, task, site, keep_going)
    cases = prepared_cases(site.train, task, site, keep_going)
    if not cases:
        raise DataError(site.name, found="no case to train on", expected="at least one")
    checkpoint = checkpoint_of(task, site, start)
    trained = train_network(
        network,
        cases,
        task.train,
        seed=derive(task.seed, site.name, task.round),
        proximal_mu=task.proximal_mu,
        checkpoint=watched(checkpoint, last_step=task.train.steps, keep_going=keep_going),
        on_step=on_step,
    )
    delta = change_made(network, task, site, local, start)
    reply = TrainReply(
        run=task.run,
        round=task.round,
        delta=delta,
        cases=CaseCounts(train=len(cases), validation=score.cases),
        score=score,
        loss=trained.mean_loss if len(cases) >= task.validation.min_cases else None,
        seconds=time.monotonic() - started,
        client_version=__version__,
    )
    checkpoint.remove()
    return reply


def checkpoint_of(task: TrainTask, site: Site, start: Weights | None = None) -> Checkpoint:
    """Where this training is kept, good for it alone: same task, same cases, same program.

    ``start`` are the weights it starts from, where they are not those of the task alone.
    """
    cases = " ".join(case.case_id for case in site.train)
    settings = " ".join(map(sha256_of, (task.model, task.preprocess, task.train)))
    digest = (start or task.weights).digest
    purpose = f"{task.run} {task.round} {task.seed} {task.proximal_mu} {task.local} {digest} {settings}"
    return Checkpoint(site.work / "training.ckpt", f"{__version__} {site.name} {purpose} {cases}")


def evaluate(task: EvaluateTask, site: Site, keep_going: KeepGoing = lambda: True) -> EvaluateReply:
    """Score the received weights (with the site's own normalisation, where the task says so) on the validation cases.

    Raises:
        ConfigError: the weights don't fit the network that the task names.
        Stopped: the site must stop.
    """
    started = time.monotonic()
    network, _, _ = network_for(task, site)
    score = score_of(network, task, site, keep_going)
    return EvaluateReply(
        run=task.run,
        round=task.round,
        cases=CaseCounts(train=told_cases(site), validation=score.cases),
        score=score,
        seconds=time.monotonic() - started,
        client_version=__version__,
    )


def do(
    task: AnyTask,
    site: Site,
    on_step: OnStep = lambda step, loss: None,
    keep_going: KeepGoing = lambda: True,
) -> TrainReply | EvaluateReply:
    if not isinstance(task, TrainTask):
        return evaluate(task, site, keep_going)
    if task.privacy is None and site.privacy is None:
        return train(task, site, on_step, keep_going)
    from brainunet_client.private_round import train_privately  # Opacus only where it is needed

    return train_privately(task, site, on_step, keep_going)


def network_for(task: AnyTask, site: Site) -> tuple[nn.Module, frozenset[str], Weights]:
    """The network, the names of the weights that stay here, and the weights that it has been given."""
    network = build(task.model).to(default_device())
    set_weights(network, task.weights)
    if task.local == "none":
        return network, frozenset(), task.weights
    local = norm_names(network)
    start = with_kept_norm(task, site, local)
    set_weights(network, start)
    return network, local, start


def change_made(network: nn.Module, task: TrainTask, site: Site, local: frozenset[str], start: Weights) -> Weights:
    """What training has made of the weights received, with zeros for what stays here and is kept.

    Args:
        local, start: see :func:`network_for`.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    made = weights_of(network)
    delta = made.minus(task.weights)
    if local:
        keep_norm(task, site, local, start, made)
        delta = without(local, delta)
    return delta


def told_cases(site: Site) -> int:
    """How many training cases the site says it has: under privacy the number that it declared once."""
    return len(site.train) if site.privacy is None else site.privacy.settings.public_cases


def score_of(network: nn.Module, task: AnyTask, site: Site, keep_going: KeepGoing) -> SiteScore:
    """Of the validation cases: no noise covers these figures, so a hospital may keep them to itself."""
    if site.privacy is not None and not site.privacy.settings.tell_scores:
        return SiteScore(cases=0, rows=(), withheld=True)
    scores: list[CaseScore] = []
    for case in site.validation:
        for prepared in prepared_cases([case], task, site, keep_going):
            assert prepared.label is not None
            predicted = predict_labels(network, prepared.image, task.validation.window)
            scores.append(score_case(case.case_id, predicted, prepared.label, prepared.spacing_mm, task.validation.metrics))
    return site_score(scores, task.validation.min_cases)


def prepared_cases(cases: Sequence[Case], task: AnyTask, site: Site, keep_going: KeepGoing) -> list[PreparedCase]:
    """The cases that can be read; the others are named in the site's own log."""
    usable: list[PreparedCase] = []
    for case in cases:
        require_going(keep_going)
        try:
            usable.append(site.cache.get(case, task.model.modalities, task.preprocess))
        except DataError as error:
            log.warning("skipped: %s", error)
    return usable
