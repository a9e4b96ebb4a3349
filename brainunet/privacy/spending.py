"""The ledger of spending: every noisy step that a site takes, written down before it is taken, in a chain on the site's disk.

It belongs to the site and not to a run or a model, and not to a set of cases: what was told of patients once is told, whoever
joined or left the data since. So it only grows. A crash can make it hold steps whose result never left, and never the other way
round. Here is what it says; ``trust`` decides whether it may be gone on with, and ``purse`` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from brainunet import chain
from brainunet.chain import JSON, Entry
from brainunet.errors import ChainBroken, PrivacyError
from brainunet.privacy.accounting import Charge, epsilon_of

BEGUN: Final = "begun"
ROUND: Final = "round"
STEP: Final = "step"
SETTLED: Final = "settled"
SETTLE: Final = "brainunet-client --privacy --settle"
BEFORE: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Spent:
    """What a ledger says.

    Attributes:
        site: whose it is.
        cases: the number of training cases that the site has declared as public.
        charges: run -> all steps taken for it; under "" what a person has added of a run that nobody knows.
        entries: how many there are; ``head``: the digest of the last.
        heads: of every entry, and those that a person has accepted in the place of lost ones.
        at: when the last was written.
        last: run and round of the last step taken, None before the first; ``last_steps``: how many were taken for it.
    """

    site: str
    cases: int
    charges: Mapping[str, tuple[Charge, ...]] = field(default_factory=dict)
    entries: int = 0
    head: str = ""
    heads: frozenset[str] = frozenset()
    at: datetime = BEFORE
    last: tuple[str, int] | None = None
    last_steps: int = 0

    @property
    def all_charges(self) -> tuple[Charge, ...]:
        return tuple(charge for charges in self.charges.values() for charge in charges)

    def epsilon(self, delta: float) -> float:
        """Of everything that has left this site, at ``delta``."""
        return epsilon_of(self.all_charges, delta)

    def epsilon_of_run(self, run: str, delta: float) -> float:
        return epsilon_of(self.charges.get(run, ()), delta)


def read_spending(path: Path) -> Spent | None:
    """What the ledger says; None where there is none yet.

    Raises:
        PrivacyError: it was changed, is no ledger of spending, or can't be read as this version writes it.
        BrainUNetError: the file can't be read.
    """
    spent: Spent | None = None
    heads: set[str] = set()
    try:
        for entry in chain.entries(path):
            spent = after(spent, entry)
            heads |= spent.heads
    except ChainBroken as error:
        raise stopped(path, f"an entry that was changed ({error.where}: {error.found})") from None
    except (LookupError, TypeError, ValueError) as error:
        raise stopped(path, f"an entry that this version can't read ({type(error).__name__})") from None
    return None if spent is None else replace(spent, heads=frozenset(heads))


def after(spent: Spent | None, entry: Entry) -> Spent:
    """With one more entry; ``heads`` are that entry's alone."""
    data = entry.data
    if spent is None:
        if entry.kind not in (BEGUN, SETTLED, chain.TORN):
            raise ValueError("a ledger that begins in the middle")
        spent = Spent(str(data.get("site", "")), int(data.get("cases", 0)))
    charges = dict(spent.charges)
    heads = {entry.digest}
    site, cases, last, last_steps = spent.site, spent.cases, spent.last, spent.last_steps
    if entry.kind == STEP:
        run, charge = str(data["run"]), _charge(data)
        charges[run] = _with(charges.get(run, ()), charge)
        before, last = last, (run, int(data["round"]))
        last_steps = charge.steps + (last_steps if before == last else 0)
    elif entry.kind in (BEGUN, SETTLED):
        site, cases = str(data["site"]), int(data["cases"])
        for carried in data.get("charges", ()):
            run = str(carried.get("run", ""))
            charges[run] = _with(charges.get(run, ()), _charge(carried))
        heads |= {str(data["accepted"])} if data.get("accepted") else set()
    elif entry.kind not in (ROUND, chain.TORN):
        raise ValueError(f"an entry of kind {entry.kind}")
    return replace(
        spent,
        site=site,
        cases=cases,
        charges=charges,
        entries=entry.number,
        head=entry.digest,
        heads=frozenset(heads),
        at=entry.at,
        last=last,
        last_steps=last_steps,
    )


def _with(charges: tuple[Charge, ...], more: Charge) -> tuple[Charge, ...]:
    """The charges with one more, steps of one kind in a row as one."""
    last = charges[-1] if charges else None
    if last is not None and (last.noise, last.rate) == (more.noise, more.rate):
        return (*charges[:-1], replace(last, steps=last.steps + more.steps))
    return (*charges, more)


def told(charge: Charge) -> dict[str, JSON]:
    return {"noise": charge.noise, "rate": charge.rate, "steps": charge.steps}


def _charge(told: Mapping[str, Any]) -> Charge:
    noise, rate, steps = float(told["noise"]), float(told["rate"]), told["steps"]
    if not (noise > 0 and 0 <= rate <= 1 and type(steps) is int and steps >= 0):
        raise ValueError("a step that can't be")
    return Charge(noise, rate, steps)


def stopped(path: Path, found: str, expected: str = "the ledger as this site last wrote it") -> PrivacyError:
    return PrivacyError(
        path,
        found=found,
        expected=expected,
        remedy="private training stops here until a person decides: put the right file back; or, if it is gone, add what it "
        f"lacks (docs/guides/privacy.md): {SETTLE} NOISE,RATE,STEPS, which the coordinator can tell",
    )
