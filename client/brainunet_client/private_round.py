"""A round of private training at a site: nothing that was computed from its training cases leaves but the noised difference.

The order is that of a ledger: it is looked at before anything else, each step is written down before it is taken, and the reply
tells the ledger's head.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from brainunet import __version__
from brainunet.privacy.purse import Purse, open_purse
from brainunet.privacy.spending import read_spending
from brainunet.privacy.trust import require_trusted
from brainunet.records import CaseCounts, EvaluateReply, PrivacySpend, SiteScore, TrainReply, TrainTask
from brainunet.settings import sha256_of
from brainunet.training.chance import Chance
from brainunet.training.private import train_privately as train_network
from brainunet.training.seeds import derive
from brainunet_client.privacy_plan import NO_SPENDING, BudgetSpent, PrivatePlan, plan_of, verdict
from brainunet_client.site import PrivateSite, Site
from brainunet_client.stopping import KeepGoing, watched
from brainunet_client.tasks import OnStep, change_made, checkpoint_of, network_for, prepared_cases, score_of, told_cases

log = logging.getLogger(__name__)


def train_privately(task: TrainTask, site: Site, on_step: OnStep, keep_going: KeepGoing) -> TrainReply | EvaluateReply:
    """Score the received weights on the validation cases, then train from them under noise and reply with the difference.

    A site whose budget bears no further round only scores.

    Raises:
        PrivacyError: the hospital's settings forbid what the task proposes, its ledger can't be trusted, or there are fewer
            cases than a step draws.
        ConfigError: the weights don't fit the network, or it is one whose cases change each other.
        Stopped: the site must stop; what was trained is kept, and what was spent is spent.
    """
    started = time.monotonic()
    own = site.privacy
    plan = plan_of(task, own.settings if own else None)  # which refuses a site without settings
    assert own is not None
    spent = read_spending(own.ledger)
    require_trusted(
        own.ledger,
        spent,
        site=site.name,
        cases=own.settings.public_cases,
        now=own.now(),
        expected_head=task.ledger_head,
        least_entries=own.least_entries,
    )
    said = verdict(plan, spent or NO_SPENDING, task.round)
    network, local, start = network_for(task, site)
    score = score_of(network, task, site, keep_going)
    scored_s = time.monotonic() - started  # of the training none is told: it counts the cases that were drawn
    if said == "budget spent":
        return _only_scored(task, site, score, scored_s)
    cases = prepared_cases(site.train, task, site, keep_going)
    checkpoint = checkpoint_of(task, site, start)
    private = f"{checkpoint.purpose} {sha256_of(task.privacy)} {plan.a_round}" if task.privacy else checkpoint.purpose
    checkpoint = replace(checkpoint, purpose=private)
    assert task.privacy is not None
    with open_purse(
        own.ledger,
        site=site.name,
        cases=own.settings.public_cases,
        run=task.run,
        round=task.round,
        at=own.now(),
        expected_head=spent.head if spent else task.ledger_head,  # scoring took its time: the ledger may be another one by now
        least_entries=own.least_entries,
    ) as purse:
        try:
            train_network(
                network,
                cases,
                task.train,
                task.privacy,
                plan.a_round,
                before_step=lambda number: purse.pay(plan.require_step(purse.spent), at=own.now()),
                chance=_chance(task, site, own),
                proximal_mu=task.proximal_mu,
                checkpoint=watched(checkpoint, last_step=plan.a_round.steps, keep_going=keep_going),
                on_step=on_step,
            )
        except BudgetSpent as error:  # an interruption has cost steps that were to come
            log.warning("round %d: %s", task.round, error)
            return _only_scored(task, site, score, scored_s)
    delta = change_made(network, task, site, local, start)
    reply = TrainReply(
        run=task.run,
        round=task.round,
        delta=delta,
        cases=CaseCounts(train=told_cases(site), validation=score.cases),
        score=score,
        loss=None,
        seconds=None,
        spend=_spend(plan, purse),
        client_version=__version__,
    )
    checkpoint.remove()
    return reply


def _only_scored(task: TrainTask, site: Site, score: SiteScore, seconds: float) -> EvaluateReply:
    log.warning("round %d: the budget of privacy is spent; this site only evaluates", task.round)
    return EvaluateReply(
        run=task.run,
        round=task.round,
        cases=CaseCounts(train=told_cases(site), validation=score.cases),
        score=score,
        seconds=seconds,
        budget_spent=True,
        client_version=__version__,
    )


def _chance(task: TrainTask, site: Site, own: PrivateSite) -> Chance:
    if own.seed is not None:
        return Chance(seed=derive(own.seed, "privacy", site.name, task.round))
    assert task.privacy is not None
    return Chance(system=task.privacy.secure_noise)


def _spend(plan: PrivatePlan, purse: Purse) -> PrivacySpend:
    return PrivacySpend(
        epsilon=purse.spent.epsilon_of_run(plan.run, plan.delta),
        delta=plan.delta,
        noise_multiplier=plan.a_round.noise,
        sample_rate=plan.a_round.rate,
        steps=purse.spent.last_steps,  # with those before an interruption
        total_epsilon=purse.spent.epsilon(plan.cap_delta),
        total_delta=plan.cap_delta,
        ledger_head=purse.spent.head,
        ledger_entries=purse.spent.entries,
    )
