"""The ledger of spending: every noisy step that a site takes, written down before it is taken, in a chain on the site's disk.

It belongs to the site and not to a run or a model, and not to a set of cases: what was told of patients once is told, whoever
joined or left the data since. So it only grows. A crash can make it hold steps whose result never left, and never the other way
round.

Who can write the file can put an earlier copy in its place, and no chain shows that. So the site tells the head with each
reply, the coordinator returns it with each task, and a ledger without that head is not gone on with until a person decides.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
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
CLOCKS_DIFFER: Final = timedelta(minutes=5)  # so far a clock may be put right without a question
BEFORE: Final = datetime.min.replace(tzinfo=UTC)

_SETTLE: Final = "brainunet-client --privacy --settle none, or noise,rate,steps of what was lost"


@dataclass(frozen=True)
class Spent:
    """What a ledger says.

    Attributes:
        site: whose it is.
        cases: the number of training cases that the site has declared as public.
        charges: run -> all steps taken for it; under "" what a person has added.
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
            spent = _after(spent, entry)
            heads |= spent.heads
    except ChainBroken as error:
        raise _stopped(path, f"an entry that was changed ({error.where}: {error.found})") from None
    except (LookupError, TypeError, ValueError) as error:
        raise _stopped(path, f"an entry that this version can't read ({type(error).__name__})") from None
    return None if spent is None else replace(spent, heads=frozenset(heads))


def require_trusted(
    path: Path,
    spent: Spent | None,
    *,
    site: str,
    cases: int,
    now: datetime,
    expected_head: str = "",
    least_entries: int = 0,
) -> None:
    """Pass if this ledger may be gone on with.

    Args:
        cases: the public number of cases that the site's settings declare.
        expected_head: the last one that the coordinator has; empty if it has none.
        least_entries: so many the site itself has told of before.

    Raises:
        PrivacyError: another site's, lost, rolled back, written in the future, or for another number of cases.
    """
    if spent is None:
        if expected_head or least_entries:
            raise _stopped(path, "no ledger, and yet this site has trained privately before: it was lost")
        return
    if spent.site != site:
        raise _stopped(path, f"the ledger of another site ({spent.site})", f"that of {site}")
    if spent.at > now + CLOCKS_DIFFER:
        raise PrivacyError(
            path,
            found=f"its last entry is of {spent.at:%Y-%m-%d %H:%M} UTC, and this machine says it is {now:%Y-%m-%d %H:%M} UTC",
            expected="a clock that only goes forward",
            remedy=f"set the clock right; if it was wrong when the entry was written: {_SETTLE}",
        )
    if spent.entries < least_entries:
        raise _stopped(path, f"{spent.entries} entries, though {least_entries} were told of before: it was rolled back")
    if expected_head and expected_head not in spent.heads:
        raise _stopped(path, "no entry with the digest that the coordinator was told last: it was rolled back or replaced")
    if spent.cases != cases:
        raise PrivacyError(
            "privacy.public_cases in site.toml",
            found=f"{cases}",
            expected=f"{spent.cases}, which was declared first: a number that follows the cases would tell of them",
            remedy=f"put it back; to declare another one: {_SETTLE}",
        )


@dataclass
class Purse:
    """A ledger that is open for the steps of one round; ``spent`` follows what is written."""

    path: Path
    run: str
    round: int
    spent: Spent

    def pay(self, charge: Charge, *, at: datetime | None = None) -> None:
        """Write steps down; when this returns they are on the disk, and may be taken.

        Raises:
            PrivacyError: someone else has written in between.
            BrainUNetError: the disk is full.
        """
        entry = chain.append(self.path, STEP, {"run": self.run, "round": self.round, **_told(charge)}, at=at)
        if entry.previous != self.spent.head:
            raise _stopped(self.path, "an entry of another client: two work with one ledger", "one client for one ledger")
        after = _after(self.spent, entry)
        self.spent = replace(after, heads=self.spent.heads | after.heads)


@contextmanager
def open_purse(path: Path, *, site: str, cases: int, run: str, round: int, at: datetime | None = None) -> Iterator[Purse]:
    """The ledger for one round, begun where there is none; nobody else can open it meanwhile.

    Whether it may be gone on with is asked before, by :func:`require_trusted`.

    Raises:
        PrivacyError: another client has it open.
        BrainUNetError: it can't be written.
    """
    with _alone(path):
        if read_spending(path) is None:
            chain.append(path, BEGUN, {"site": site, "cases": cases}, at=at)
        chain.append(path, ROUND, {"run": run, "round": round}, at=at)  # and a line that was cut short is set aside
        spent = read_spending(path)
        assert spent is not None
        yield Purse(path, run, round, spent)


def settle(
    path: Path,
    *,
    site: str,
    cases: int,
    carried: Sequence[Charge],
    accepted_head: str = "",
    at: datetime | None = None,
) -> tuple[Spent, Path | None]:
    """A person's decision about a ledger that was stopped: it is gone on with, what was lost of it added by hand.

    A ledger that can be read and is this site's stays, and the decision is its next entry. Any other one is set aside, under a
    name of its own, and a new one begins.

    Args:
        carried: what was spent and is not in the ledger; the coordinator can tell (``flower-server privacy``).
        accepted_head: the head that the coordinator has, if the ledger lacks it.

    Returns:
        The ledger now, and where the earlier one was put (None: it stays).

    Raises:
        PrivacyError: another client has it open.
        BrainUNetError: it can't be written.
    """
    with _alone(path):
        aside: Path | None = None
        try:
            before = read_spending(path)
            stays = before is None or before.site == site
        except PrivacyError:
            stays = False
        if not stays:
            aside = path.with_name(f"{path.name}.aside-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}")
            path.replace(aside)
        data: dict[str, JSON] = {
            "site": site,
            "cases": cases,
            "accepted": accepted_head,
            "charges": [_told(charge) for charge in carried],
            "aside": None if aside is None else aside.name,
        }
        chain.append(path, SETTLED, data, at=at)
        spent = read_spending(path)
        assert spent is not None
        return spent, aside


def _after(spent: Spent | None, entry: Entry) -> Spent:
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
        for told in data.get("charges", ()):
            charges[""] = _with(charges.get("", ()), _charge(told))
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


def _told(charge: Charge) -> dict[str, JSON]:
    return {"noise": charge.noise, "rate": charge.rate, "steps": charge.steps}


def _charge(told: Mapping[str, Any]) -> Charge:
    noise, rate, steps = float(told["noise"]), float(told["rate"]), told["steps"]
    if not (noise >= 0 and 0 <= rate <= 1 and type(steps) is int and steps >= 0):
        raise ValueError("a step that can't be")
    return Charge(noise, rate, steps)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PrivacyError(
                path,
                found="another client is training with it now",
                expected="one client for one ledger",
                remedy="stop that one first: two could spend the same budget twice",
            ) from None
        yield
    finally:
        os.close(lock)


def _stopped(path: Path, found: str, expected: str = "the ledger as this site last wrote it") -> PrivacyError:
    return PrivacyError(
        path,
        found=found,
        expected=expected,
        remedy="private training stops here until a person decides: put the right file back, or settle it "
        f"(docs/guides/privacy.md): {_SETTLE}",
    )
