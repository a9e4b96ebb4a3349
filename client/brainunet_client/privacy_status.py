"""How a hospital stands with its budget of privacy: what is spent, what the next round costs, what is left. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from brainunet.errors import ConfigError, FederationError, PrivacyError
from brainunet.kit import open_kit
from brainunet.privacy.accounting import Charge
from brainunet.privacy.spending import Spent, read_spending, require_trusted, settle
from brainunet.records import AnyTask, TrainTask
from brainunet.spool import read_packed
from brainunet.wire import unpack
from brainunet_client.home import Home
from brainunet_client.ledger import entries_told, record_settled
from brainunet_client.privacy_plan import NO_SPENDING, PrivatePlan, plan_of, verdict
from brainunet_client.site_settings import SitePrivacy, read_site_settings, stricter


@dataclass(frozen=True)
class PrivacyStatus:
    """What ``brainunet-client --privacy`` tells.

    Attributes:
        problem: why private training stops here; None if it doesn't.
        plan: of the last task that asked for private training; None if there was none, or ``no_next`` forbids it.
        no_next: why there is no next round.
    """

    own: SitePrivacy
    spent: Spent
    problem: PrivacyError | None
    plan: PrivatePlan | None
    no_next: str | None

    @property
    def epsilon(self) -> float:
        return self.spent.epsilon(self.own.counted_at)

    @property
    def epsilon_after_next(self) -> float | None:
        if self.plan is None:
            return None
        more = Spent("", 0, {"all": (*self.spent.all_charges, self.plan.a_round)})
        return more.epsilon(self.own.counted_at)

    @property
    def rounds_left(self) -> int | None:
        return None if self.plan is None else self.plan.left(self.spent)

    def facts(self) -> dict[str, Any]:
        """As JSON's own types."""
        own, plan = self.own, self.plan
        return {
            "site": self.spent.site or None,
            "public_cases": own.public_cases,
            "delta": own.counted_at,
            "problem": None if self.problem is None else str(self.problem),
            "spent": {
                "epsilon": self.epsilon,
                "runs": {
                    run or "settled by hand": {
                        "epsilon": self.spent.epsilon_of_run(run, own.counted_at),
                        "steps": sum(charge.steps for charge in charges),
                    }
                    for run, charges in self.spent.charges.items()
                },
            },
            "next": None
            if plan is None
            else {
                "run": plan.run,
                "epsilon_after": self.epsilon_after_next,
                "noise_multiplier": plan.a_round.noise,
                "sample_rate": plan.a_round.rate,
                "steps": plan.a_round.steps,
            },
            "no_next": self.no_next,
            "left": {"epsilon": max(0.0, own.epsilon - self.epsilon), "of": own.epsilon, "rounds": self.rounds_left},
            "ledger": {"entries": self.spent.entries, "head": self.spent.head or None},
        }


def privacy_status(home: Home, now: datetime | None = None) -> PrivacyStatus:
    """How this home stands.

    Raises:
        ConfigError: its settings have no part [privacy], or a file of it is not good.
        ChainBroken, BrainUNetError: the ledger of transfers can't be read.
    """
    own = _own(home)
    task = _last_task(home)
    spent, problem = NO_SPENDING, None
    try:
        spent = read_spending(home.privacy) or NO_SPENDING
        require_trusted(
            home.privacy,
            spent if spent.entries else None,
            site=open_kit(home.kit).site if home.kit.exists() else spent.site,
            cases=own.public_cases,
            now=now or datetime.now(UTC),
            expected_head="" if task is None else task.ledger_head,
            least_entries=entries_told(home),
        )
    except PrivacyError as error:
        problem = error
    plan, no_next = None, "no task of private training has come yet"
    if isinstance(task, TrainTask):
        try:
            plan = plan_of(stricter(read_site_settings(home), task), own)
            said = verdict(plan, spent, task.round + 1)
            no_next = "the budget is spent: this site only evaluates" if said == "budget spent" else ""
        except PrivacyError as error:
            plan, no_next = None, str(error)
    return PrivacyStatus(own, spent, problem, plan, no_next or None)


def settle_privacy(home: Home, carried: list[Charge]) -> PrivacyStatus:
    """A person's decision that private training goes on (see ``brainunet.privacy.spending.settle``), in both ledgers.

    Raises:
        ConfigError: no part [privacy] in the settings, or no kit.
        PrivacyError: another client is training with the ledger.
    """
    own, task = _own(home), _last_task(home)
    head = "" if task is None else task.ledger_head
    _, aside = settle(
        home.privacy,
        site=open_kit(home.kit).site,
        cases=own.public_cases,
        carried=carried,
        accepted_head=head,
    )
    record_settled(home, carried_steps=sum(charge.steps for charge in carried), aside=aside is not None)
    return privacy_status(home)


def _own(home: Home) -> SitePrivacy:
    own = read_site_settings(home).privacy
    if own is None:
        raise ConfigError(
            home.settings,
            found="no part [privacy]",
            expected="privacy.public_cases and privacy.epsilon",
            remedy="decide both, and write them down there (docs/guides/privacy.md); till then it trains without privacy",
        )
    return own


def _last_task(home: Home) -> AnyTask | None:
    packed = read_packed(home.received)
    if packed is None:
        return None
    try:
        task: AnyTask = unpack(packed, AnyTask)
    except FederationError:  # of another version: the next one will say
        return None
    return task
