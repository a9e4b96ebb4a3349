"""A site as its tasks see it: a name, cases on two sides of a fixed split, a cache, a folder for work in progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from brainunet.data.cache import CaseCache
from brainunet.data.splits import Side
from brainunet.records import Case


@dataclass(frozen=True)
class Site:
    """``work`` holds checkpoints of unfinished training; nothing in it leaves the site."""

    name: str
    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    cache: CaseCache
    work: Path

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
