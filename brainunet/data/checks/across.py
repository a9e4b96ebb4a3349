"""Checks that need more than one case: the same images, or the same patient, under two names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from brainunet.data.checks.findings import CaseReport, Finding, note, warning
from brainunet.data.patients import patient_of


def not_duplicated(reports: Sequence[CaseReport]) -> Mapping[str, Sequence[Finding]]:
    """Images that another case has too, by SHA-256 of the brain's intensities, whatever the files are called or how packed.

    Warning: the patient counts twice, and with one copy on each side of the split the validation score is no test. Equality
    has no threshold; a copy that was resampled or scaled is not found.
    """
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for report in reports:
        for modality, digest in report.digests.items():
            owners[modality, digest].append(report.case_id)
    same: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (modality, _), cases in owners.items():
        for case in cases if len(cases) > 1 else ():
            for other in cases:
                if other != case:
                    same[case][other].append(modality)
    remedy = "keep one of the two cases and move the other out of the folder"
    return {
        case: [warning(f"the same {', '.join(modalities)} as {other}", remedy) for other, modalities in sorted(others.items())]
        for case, others in same.items()
    }


def one_visit(reports: Sequence[CaseReport]) -> Mapping[str, Sequence[Finding]]:
    """Other cases of the same patient: visits by their names, and the pairs known of BraTS 2021 (``data/splits.py``).

    Note: legal, and the split keeps a patient on one side; but there are fewer patients than cases.
    """
    visits: dict[str, list[str]] = defaultdict(list)
    for report in reports:
        visits[patient_of(report.case_id)].append(report.case_id)
    return {
        case: [
            note(f"the same patient as {', '.join(other for other in cases if other != case)}: kept on one side of the split")
        ]
        for cases in visits.values()
        if len(cases) > 1
        for case in cases
    }
