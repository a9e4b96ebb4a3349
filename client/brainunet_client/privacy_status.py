"""How a hospital stands with its budget of privacy: what is spent, what the next round costs, what is left. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from brainunet.errors import ConfigError, FederationError, PrivacyError
from brainunet.kit import open_kit
from brainunet.privacy.accounting import Charge, epsilon_of
from brainunet.privacy.purse import settle
from brainunet.privacy.spending import Spent, read_spending
from brainunet.privacy.trust import require_trusted
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
        spent: what the ledger says; None where it can't be read, is another site's or is lost: then nobody here knows. Of one
            that was rolled back it is less than there was.
        problem: why private training stops here; None if it doesn't.
        plan: of the last task that asked for private training; None if there was none, or ``no_next`` forbids it.
        no_next: why there is no next round.
        refusal: of what the last task proposed, if that is why.
    """

    own: SitePrivacy
    spent: Spent | None
    problem: PrivacyError | None
    plan: PrivatePlan | None
    no_next: str | None
    refusal: PrivacyError | None = None

    @property
    def epsilon(self) -> float | None:
        return None if self.spent is None else self.spent.epsilon(self.own.counted_at)

    @property
    def epsilon_after_next(self) -> float | None:
        if self.plan is None or self.spent is None:
            return None
        return epsilon_of([*self.spent.all_charges, self.plan.a_round], self.own.counted_at)

    @property
    def epsilon_left(self) -> float | None:
        """None while private training is stopped: what is left is not known, and nothing of it can be spent."""
        return None if self.epsilon is None or self.problem is not None else max(0.0, self.own.epsilon - self.epsilon)

    @property
    def rounds_left(self) -> int | None:
        return None if self.plan is None or self.spent is None else self.plan.left(self.spent)

    def facts(self) -> dict[str, Any]:
        """As JSON's own types."""
        own, plan, spent = self.own, self.plan, self.spent
        return {
            "site": None if spent is None else spent.site or None,
            "public_cases": own.public_cases,
            "delta": own.counted_at,
            "problem": None if self.problem is None else str(self.problem),
            "spent": {
                "epsilon": self.epsilon,
                "runs": None
                if spent is None
                else {
                    run or "settled by hand": {
                        "epsilon": spent.epsilon_of_run(run, own.counted_at),
                        "steps": sum(charge.steps for charge in charges),
                    }
                    for run, charges in spent.charges.items()
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
            "left": {"epsilon": self.epsilon_left, "of": own.epsilon, "rounds": self.rounds_left},
            "ledger": None if spent is None else {"entries": spent.entries, "head": spent.head or None},
        }


def privacy_status(home: Home, now: datetime | None = None) -> PrivacyStatus:
    """How this home stands.

    Raises:
        ConfigError: its settings have no part [privacy], or a file of it is not good.
        ChainBroken, BrainUNetError: the ledger of transfers can't be read.
    """
    own = _own(home)
    task = _last_task(home)
    spent: Spent | None = None
    try:
        spent = read_spending(home.privacy)
        site = open_kit(home.kit).site if home.kit.exists() else spent.site if spent else ""
        require_trusted(
            home.privacy,
            spent,
            site=site,
            cases=own.public_cases,
            now=now or datetime.now(UTC),
            expected_head="" if task is None else task.ledger_head,
            least_entries=entries_told(home),
        )
    except PrivacyError as error:
        of_this_site = spent if spent is not None and spent.site == site else None
        return PrivacyStatus(own, of_this_site, error, None, "private training is stopped until a person decides")
    spent = spent or NO_SPENDING
    if not isinstance(task, TrainTask):
        none = "no task has come yet" if task is None else "the last task that came only scores"
        return PrivacyStatus(own, spent, None, None, none)
    try:
        plan = plan_of(stricter(read_site_settings(home), task), own)
        said = verdict(plan, spent, task.round + 1)
    except PrivacyError as error:
        return PrivacyStatus(own, spent, None, None, str(error), refusal=error)
    return PrivacyStatus(
        own, spent, None, plan, "the budget is spent: this site only evaluates" if said == "budget spent" else None
    )


def settle_privacy(home: Home, carried: Mapping[str, Sequence[Charge]]) -> PrivacyStatus:
    """A person's decision that private training goes on (see ``brainunet.privacy.purse.settle``), in both ledgers.

    Raises:
        ConfigError: no part [privacy] in the settings, or no kit.
        PrivacyError: nothing is carried though something is known to be lost, or another client is training with the ledger.
    """
    own, task = _own(home), _last_task(home)
    head = "" if task is None else task.ledger_head
    _, aside = settle(
        home.privacy,
        site=open_kit(home.kit).site,
        cases=own.public_cases,
        carried=carried,
        accepted_head=head,
        least_entries=entries_told(home),
    )
    record_settled(
        home, carried_steps=sum(charge.steps for charges in carried.values() for charge in charges), aside=aside is not None
    )
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
