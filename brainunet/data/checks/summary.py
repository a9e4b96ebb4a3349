"""How often each check found something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from brainunet.data.checks import ACROSS, CHECKS, SEARCH, CaseReport


@dataclass(frozen=True)
class CheckTally:
    """One check over all cases.

    Attributes:
        name: as in its table.
        looks_for: the first sentence of its description.
        counts: cases in which it found something, by severity.
        remedy: what to do about most of it; empty where there is nothing to do.
    """

    name: str
    looks_for: str
    counts: Counter[str]
    remedy: str


def tally(reports: Sequence[CaseReport]) -> list[CheckTally]:
    """A row for every check, in the order of the tables; a case counts once for a check and a severity."""
    described = {**SEARCH, **{name: check.__doc__ or "" for name, check in (*CHECKS.items(), *ACROSS.items())}}
    counts: dict[str, Counter[str]] = {name: Counter() for name in described}
    remedies: dict[str, Counter[str]] = {name: Counter() for name in described}
    for report in reports:
        for name, severity in {(finding.check, finding.severity) for finding in report.findings}:
            counts[name][severity] += 1
        for finding in report.findings:
            if finding.remedy:
                remedies[finding.check][finding.remedy] += 1
    return [
        CheckTally(name, _first_sentence(text), counts[name], next((said for said, _ in remedies[name].most_common(1)), ""))
        for name, text in described.items()
    ]


def _first_sentence(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")
