"""The doctor for a site's data: what is wrong with its cases, said before a training stumbles over it or learns from it.

A check is a function on plain data, one line in a table. ``CHECKS`` look at one case each, ``ACROSS`` at all of them together.
What training refuses (``preprocess.prepare``) is an error here too, in the same words, because both ask the same functions
(docs/adr/0017).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, TypeAlias

from brainunet.data.checks.across import not_duplicated, one_visit
from brainunet.data.checks.coverage import complete, registered, sharp, thin_slices
from brainunet.data.checks.facts import Facts, read_facts
from brainunet.data.checks.files import not_empty, number_type, oblique, orientation, readable, same_grid, spacing
from brainunet.data.checks.findings import CaseReport, Finding, Severity, worst_first
from brainunet.data.checks.heads import stripped
from brainunet.data.checks.intensities import not_clipped, not_constant, not_copied, not_negative
from brainunet.data.checks.segmentations import labels_inside, labels_known, labels_present, segmented

__all__ = [
    "ACROSS",
    "CHECKS",
    "SEARCH",
    "CaseReport",
    "Facts",
    "Finding",
    "Severity",
    "examine",
    "examine_across",
    "read_facts",
]

Check: TypeAlias = Callable[[Facts], Sequence[Finding]]
AcrossCheck: TypeAlias = Callable[[Sequence[CaseReport]], Mapping[str, Sequence[Finding]]]

CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "readable": readable,
        "grid": same_grid,
        "empty": not_empty,
        "constant": not_constant,
        "labels": labels_known,
        "skull": stripped,
        "copied": not_copied,
        "clipped": not_clipped,
        "cut off": complete,
        "registration": registered,
        "blur": sharp,
        "spacing": spacing,
        "tilt": oblique,
        "orientation": orientation,
        "number type": number_type,
        "labels outside": labels_inside,
        "unsegmented": segmented,
        "absent labels": labels_present,
        "negative": not_negative,
        "thick slices": thin_slices,
    }
)
# What the search for cases finds is no function of a case: these words stand for it where checks are listed.
SEARCH: Final[Mapping[str, str]] = MappingProxyType(
    {"files": "Modalities without a file, two files for one, and names that don't tell their convention."}
)
ACROSS: Final[Mapping[str, AcrossCheck]] = MappingProxyType({"duplicates": not_duplicated, "same patient": one_visit})


def examine(facts: Facts) -> CaseReport:
    """Every check of a case, the worst finding first."""
    found = [replace(finding, check=name) for name, check in CHECKS.items() for finding in check(facts)]
    return CaseReport(facts.case.case_id, worst_first(found), dict(facts.digests))


def examine_across(reports: Sequence[CaseReport]) -> list[CaseReport]:
    """The reports, in their order, with what only all of them together show."""
    added = {name: check(reports) for name, check in ACROSS.items()}
    return [
        report.plus(replace(finding, check=name) for name, found in added.items() for finding in found.get(report.case_id, ()))
        for report in reports
    ]
