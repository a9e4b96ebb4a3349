"""The checks on real cases: none is taken for a head, and the one that is known to be worn is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brainunet.data.cases import find_cases
from brainunet.data.checks import CaseReport, Severity, examine, examine_across, read_facts
from brainunet.labels import Modality

pytestmark = [pytest.mark.real, pytest.mark.slow]

WORN = "BraTS2021_01482"


@pytest.fixture(scope="module")
def reports() -> dict[str, CaseReport]:
    folder = os.environ.get("BRAINUNET_REAL_CASES")
    if not folder:
        pytest.skip("BRAINUNET_REAL_CASES names no folder of real cases")
    found = examine_across([examine(read_facts(case, list(Modality))) for case in find_cases(Path(folder)).cases])
    for report in found:
        print(report.case_id, *(f"{f.severity} {f.check}: {f.said}" for f in report.findings), sep="\n  ")  # noqa: T201
    return {report.case_id: report for report in found}


def test_no_real_case_is_a_head_and_none_is_refused(reports: dict[str, CaseReport]) -> None:
    assert [report.case_id for report in reports.values() if not report.usable] == []


def test_the_worn_case_is_clipped_its_t1n_blurred_and_cut_off_and_no_other_is_warned_of(reports: dict[str, CaseReport]) -> None:
    if WORN not in reports:
        pytest.skip(f"{WORN} is not among the real cases")
    said = [finding.said for finding in reports[WORN].findings if finding.severity is Severity.WARNING]

    assert any(line.startswith("t1n, t1c, t2w, t2f: 1 voxel has the highest intensity, 32767") for line in said)
    assert any(line.startswith("t1n: cut off") for line in said)
    assert "t1n: blurred left-right, where another modality is sharp" in said
    warned = [report.case_id for report in reports.values() if report.worst is Severity.WARNING]
    assert [case for case in warned if case.startswith("BraTS2021_014")] == [WORN]
