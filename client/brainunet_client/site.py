"""A site as its tasks see it: a name, cases on two sides of a fixed split, a cache, a folder for work in progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from brainunet.data.cache import CaseCache
from brainunet.data.splits import Side
from brainunet.records import Case
from brainunet_client.site_settings import SitePrivacy


@dataclass(frozen=True)
class PrivateSite:
    """A site that trains only under differential privacy.

    Attributes:
        settings: what its hospital allows.
        ledger: where its spending is written down.
        least_entries: so many entries of it have been told of before.
        seed: of a simulation, which must repeat; None takes draws and noise from this machine's system.
    """

    settings: SitePrivacy
    ledger: Path
    least_entries: int = 0
    seed: int | None = None
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Site:
    """``work`` holds checkpoints of unfinished training; nothing in it leaves the site. ``privacy``: None trains as always."""

    name: str
    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    cache: CaseCache
    work: Path
    privacy: PrivateSite | None = None

    @classmethod
    def of(cls, name: str, cases: Iterable[Case], sides: Mapping[str, Side], cache: CaseCache, work: Path) -> Site:
        """The site of these cases, each on the side that ``sides`` gives it."""
        ordered = sorted(cases, key=lambda case: case.case_id)
        return cls(
            name,
            tuple(case for case in ordered if sides[case.case_id] == "train"),
            tuple(case for case in ordered if sides[case.case_id] == "validation"),
            cache,
            work,
        )
