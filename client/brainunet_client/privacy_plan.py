"""What a private round is at this site, and whether its hospital and its budget allow it: by numbers alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from brainunet.errors import PrivacyError
from brainunet.privacy.accounting import Charge, epsilon_of
from brainunet.privacy.calibration import noise_for, rounds_left
from brainunet.privacy.spending import Spent
from brainunet.records import TrainTask
from brainunet_client.site_settings import SitePrivacy

Verdict: TypeAlias = Literal["train", "budget spent"]
NO_SPENDING: Spent = Spent(site="", cases=0)


class BudgetSpent(PrivacyError):
    """The next step would pass what the hospital allows."""


@dataclass(frozen=True)
class PrivatePlan:
    """A run as this site does it.

    Attributes:
        a_round: the steps of one round.
        rounds: in so many the site can take part.
        epsilon: of the run, at ``delta``; its noise is made for these.
        cap: of the site over all runs, at ``cap_delta``.
    """

    run: str
    a_round: Charge
    rounds: int
    epsilon: float
    delta: float
    cap: float
    cap_delta: float

    def allows(self, spent: Spent, rounds: int = 1) -> bool:
        """Whether so many more rounds keep both the run's epsilon and the site's."""
        more = Charge(self.a_round.noise, self.a_round.rate, self.a_round.steps * rounds)
        return self.allows_charge(spent, more)

    def allows_charge(self, spent: Spent, more: Charge) -> bool:
        of_run = epsilon_of([*spent.charges.get(self.run, ()), more], self.delta)
        return of_run <= self.epsilon and epsilon_of([*spent.all_charges, more], self.cap_delta) <= self.cap

    def require_step(self, spent: Spent) -> Charge:
        """The next step, if it may be taken.

        Raises:
            BudgetSpent: it may not.
        """
        step = Charge(self.a_round.noise, self.a_round.rate)
        if not self.allows_charge(spent, step):
            raise BudgetSpent("privacy", found="the budget is spent", remedy="this site only evaluates from here on")
        return step

    def left(self, spent: Spent) -> int:
        """How many more rounds of this run there may be."""
        of_site = rounds_left(spent.all_charges, self.a_round, self.cap, self.cap_delta)
        return min(of_site, rounds_left(spent.charges.get(self.run, ()), self.a_round, self.epsilon, self.delta))


def plan_of(task: TrainTask, own: SitePrivacy | None) -> PrivatePlan:
    """The noise and the rate that this site needs for what the federation proposes.

    Args:
        task: as the site does it (see ``site_settings.stricter``).

    Raises:
        PrivacyError: one of the rules of RULES forbids it.
    """
    for rule in RULES:
        if refusal := rule(task, own):
            raise refusal
    asked = task.privacy
    assert asked is not None
    assert own is not None
    assert asked.rounds is not None
    rate = asked.cases_per_step / own.public_cases
    noise = noise_for(asked.epsilon, asked.delta, rate=rate, steps=task.train.steps * asked.rounds)
    return PrivatePlan(
        run=task.run,
        a_round=Charge(max(noise, own.min_noise), rate, task.train.steps),
        rounds=asked.rounds,
        epsilon=asked.epsilon,
        delta=asked.delta,
        cap=own.epsilon,
        cap_delta=own.counted_at,
    )


def verdict(plan: PrivatePlan, spent: Spent, round: int) -> Verdict:
    """Whether this round may be trained.

    One that was interrupted goes on as long as its next step may be taken.

    Raises:
        PrivacyError: the run has not begun at this site, and all of its rounds are more than the budget bears.
    """
    if spent.last == (plan.run, round):
        return "train" if plan.allows_charge(spent, Charge(plan.a_round.noise, plan.a_round.rate)) else "budget spent"
    if not plan.allows(spent):
        return "budget spent"
    rounds = max(1, plan.rounds - round + 1)
    if plan.run not in spent.charges and not plan.allows(spent, rounds):
        before, left = spent.epsilon(plan.cap_delta), plan.left(spent)
        raise PrivacyError(
            "privacy",
            found=f"{rounds} rounds, of which the budget bears {left} (epsilon {before:.2f} of {plan.cap:g} is spent)",
            expected="a run that the budget bears to its end",
            remedy="ask the coordinator for fewer rounds or a smaller epsilon; "
            "or raise privacy.epsilon in site.toml, if your hospital decides so",
        )
    return "train"


Rule = Callable[[TrainTask, "SitePrivacy | None"], "PrivacyError | None"]


def _both_want_privacy(task: TrainTask, own: SitePrivacy | None) -> PrivacyError | None:
    if task.privacy is None:
        return PrivacyError(
            "the task",
            found="training without privacy",
            expected="privacy, which site.toml demands",
            remedy="ask the coordinator to set [privacy] in federation.toml for a new run",
        )
    if own is None:
        return PrivacyError(
            "site.toml",
            found="no part [privacy]",
            expected="privacy.public_cases and privacy.epsilon, for the run is a private one",
            remedy="decide both (docs/guides/privacy.md), and write them down in site.toml",
        )
    return None


def _delta_is_below_one_case(task: TrainTask, own: SitePrivacy | None) -> PrivacyError | None:
    assert task.privacy is not None
    assert own is not None
    if task.privacy.delta <= 1 / own.public_cases:
        return None
    return PrivacyError(
        "privacy.delta",
        found=f"{task.privacy.delta:g}",
        expected=f"at most 1 / {own.public_cases} = {1 / own.public_cases:.3g}, one over the cases of this site",
        remedy="ask the coordinator for a smaller delta in federation.toml",
    )


def _a_step_is_a_part_of_the_cases(task: TrainTask, own: SitePrivacy | None) -> PrivacyError | None:
    assert task.privacy is not None
    assert own is not None
    if task.privacy.cases_per_step <= own.public_cases:
        return None
    return PrivacyError(
        "privacy.cases_per_step",
        found=f"{task.privacy.cases_per_step} cases in a step, of {own.public_cases}",
        expected="at most as many as the site has declared",
        remedy="ask the coordinator for smaller steps in federation.toml",
    )


def _batches_are_not_added_up(task: TrainTask, own: SitePrivacy | None) -> PrivacyError | None:
    if task.train.accumulate == 1:
        return None
    return PrivacyError(
        "train.accumulate",
        found=f"{task.train.accumulate}",
        expected="1: a private step has as many cases as privacy.cases_per_step says, in the same memory",
        remedy="ask the coordinator to raise privacy.cases_per_step instead",
    )


def _steps_take_patches(task: TrainTask, own: SitePrivacy | None) -> PrivacyError | None:
    if task.train.whole_share == 0:
        return None
    return PrivacyError(
        "train.whole_share",
        found=f"{task.train.whole_share:g}",
        expected="0: a private step takes patches of each case that it draws",
        remedy="ask the coordinator for a new run without it",
    )


RULES: tuple[Rule, ...] = (
    _both_want_privacy,
    _delta_is_below_one_case,
    _a_step_is_a_part_of_the_cases,
    _batches_are_not_added_up,
    _steps_take_patches,
)
