"""The ledger of spending while it is written: a step before it is taken, and a person's decision."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from brainunet import chain
from brainunet.chain import JSON
from brainunet.errors import PrivacyError
from brainunet.privacy.accounting import Charge
from brainunet.privacy.spending import BEGUN, ROUND, SETTLED, STEP, Spent, after, read_spending, told
from brainunet.privacy.trust import require_trusted


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
        entry = chain.append(self.path, STEP, {"run": self.run, "round": self.round, **told(charge)}, at=at)
        if entry.previous != self.spent.head:
            raise _two_clients(self.path, "another client has written into it meanwhile")
        now = after(self.spent, entry)
        self.spent = replace(now, heads=self.spent.heads | now.heads)


@contextmanager
def open_purse(
    path: Path,
    *,
    site: str,
    cases: int,
    run: str,
    round: int,
    at: datetime | None = None,
    expected_head: str = "",
    least_entries: int = 0,
) -> Iterator[Purse]:
    """The ledger for one round, begun where there is none; nobody else can open it meanwhile.

    Args:
        at: the time of its entries, now if not said; the others are those of :func:`~brainunet.privacy.trust.require_trusted`.

    Raises:
        PrivacyError: another client has it open, or it can't be trusted: who looked before may have looked at another file.
        BrainUNetError: it can't be written.
    """
    with _alone(path):
        found, now = read_spending(path), at or datetime.now(UTC)
        require_trusted(path, found, site=site, cases=cases, now=now, expected_head=expected_head, least_entries=least_entries)
        if found is None:
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
    carried: Mapping[str, Sequence[Charge]],
    accepted_head: str = "",
    least_entries: int = 0,
    at: datetime | None = None,
) -> tuple[Spent, Path | None]:
    """A person's decision about a ledger that was stopped: it is gone on with, what was lost of it added by hand.

    A ledger that can be read and is this site's stays, and the decision is its next entry. Any other one is set aside, under a
    name of its own, and a new one begins.

    Args:
        carried: run -> what was spent for it and is not in the ledger, under "" of a run that nobody knows; the coordinator
            can tell (``flower-server privacy``).
        accepted_head: the head that the coordinator has, if the ledger lacks it.
        least_entries: so many the site itself has told of before.

    Returns:
        The ledger now, and where the earlier one was put (None: it stays).

    Raises:
        PrivacyError: nothing is carried, though entries are known to be lost, or another client has it open.
        BrainUNetError: it can't be written.
    """
    with _alone(path):
        aside, lost = None, ""
        try:
            before = read_spending(path)
            entries = 0 if before is None else before.entries
            if before is not None and before.site != site:
                lost = f"all of the ledger of another site ({before.site})"
            elif entries < least_entries:
                lost = f"{least_entries - entries} of {least_entries} entries that this site has told of"
            stays = before is None or before.site == site
        except PrivacyError:
            lost, stays = "a ledger that can't be read, with all that was spent", False
        if lost and not any(carried.values()):
            raise PrivacyError(
                path,
                found=f"it would forget {lost}, and add nothing",
                expected="noise, rate and steps of what was spent",
                remedy="ask the coordinator: flower-server privacy DIR --site NAME prints the words to type; or put the right "
                "file back. One that was never this site's is taken away and not settled",
            )
        if not stays:
            aside = path.with_name(f"{path.name}.aside-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}")
            path.replace(aside)
        data: dict[str, JSON] = {
            "site": site,
            "cases": cases,
            "accepted": accepted_head,
            "charges": [told(charge) | {"run": run} for run, charges in carried.items() for charge in charges],
            "aside": None if aside is None else aside.name,
        }
        chain.append(path, SETTLED, data, at=at)
        spent = read_spending(path)
        assert spent is not None
        return spent, aside


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _two_clients(path, "another client is training with it now") from None
        yield
    finally:
        os.close(lock)


def _two_clients(path: Path, found: str) -> PrivacyError:
    return PrivacyError(
        path,
        found=found,
        expected="one client for one ledger",
        remedy="stop that one first: two could spend the same budget twice",
    )
