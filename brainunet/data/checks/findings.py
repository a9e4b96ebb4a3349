"""What the checks of the data say: how bad it is, what was found, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from brainunet.errors import DataError


class Severity(StrEnum):
    """How much a finding weighs; in order, the worst first."""

    ERROR = "error"  # the case is of no use as it is
    WARNING = "warning"  # it can be used, and somebody should look at it first
    NOTE = "note"  # worth knowing, nothing to do


@dataclass(frozen=True)
class Finding:
    """One thing that a check found in one case.

    Attributes:
        severity: what it means for the use of the case.
        said: what was found, with the file or the modality it was found in.
        remedy: what to do; empty where there is nothing to do.
        check: the name of the check in its table.
    """

    severity: Severity
    said: str
    remedy: str = ""
    check: str = ""


@dataclass(frozen=True)
class CaseReport:
    """What was found in a case.

    Attributes:
        case_id: belongs to the site and stays there.
        findings: the worst first.
        digests: SHA-256 of the brain's intensities, by modality: equal for equal images, whatever their files are.
    """

    case_id: str
    findings: tuple[Finding, ...]
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return self.worst is not Severity.ERROR

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding; None if nothing was found."""
        return self.findings[0].severity if self.findings else None

    def plus(self, findings: Iterable[Finding]) -> CaseReport:
        """The same report with more findings."""
        return CaseReport(self.case_id, worst_first((*self.findings, *findings)), self.digests)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """In order of severity; those of one severity stay in the order of the checks."""
    order = list(Severity)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))


def refusal(error: DataError) -> Finding:
    """What a refusal of the reading functions is to a check: the same words."""
    said = f"{error.where}: {error.found}" + (f", but expected {error.expected}" if error.expected else "")
    return Finding(Severity.ERROR, said, error.remedy)


def error(said: str, remedy: str) -> Finding:
    return Finding(Severity.ERROR, said, remedy)


def warning(said: str, remedy: str) -> Finding:
    return Finding(Severity.WARNING, said, remedy)


def note(said: str, remedy: str = "") -> Finding:
    return Finding(Severity.NOTE, said, remedy)
