"""The checks of the data: each finds its fault and no other does, and what training refuses is refused in the same words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brainunet.config import PreprocessConfig
from brainunet.data.checks import ACROSS, CHECKS, CaseReport, Severity, examine, examine_across, read_facts
from brainunet.data.checks.findings import note, warning, worst_first
from brainunet.data.checks.summary import tally
from brainunet.data.preprocess import prepare
from brainunet.errors import DataError
from brainunet.labels import Modality
from brainunet.records import Case
from tests.support.studies import sound, write_study
from tests.support.study_faults import FIRING, NEARLY

ALL = tuple(Modality)

# What training goes on with, and the check does not.
STRICTER = ("copied",)


def refusal_of(case: Case) -> DataError | None:
    """What training refuses the case for."""
    try:
        prepare(case, ALL, PreprocessConfig())
    except DataError as error:
        return error
    return None


def test_every_check_has_a_study_that_shows_its_fault_and_one_that_nearly_does() -> None:
    assert set(FIRING) == set(CHECKS)
    assert set(NEARLY) == set(CHECKS)


@pytest.mark.parametrize("name", FIRING)
def test_a_fault_is_found_by_its_check_and_by_no_other(tmp_path: Path, name: str) -> None:
    study = sound()
    FIRING[name](study)

    report = examine(read_facts(write_study(study, tmp_path), ALL))

    assert {finding.check for finding in report.findings} == {name}
    assert all(finding.said for finding in report.findings)


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_nearly_a_fault_is_none(tmp_path: Path, name: str) -> None:
    study = sound()
    NEARLY[name](study)

    report = examine(read_facts(write_study(study, tmp_path), ALL))

    assert [finding for finding in report.findings if finding.check == name] == []


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_says_what_it_looks_for_and_weighs_it(name: str) -> None:
    said = CHECKS[name].__doc__ or ""

    assert said.partition("\n\n")[0].strip().endswith(".") or "Error" in said
    assert any(word in said.lower() for word in ("error", "warning", "note"))


@pytest.mark.parametrize("name", FIRING)
def test_errors_and_warnings_say_what_to_do(tmp_path: Path, name: str) -> None:
    study = sound()
    FIRING[name](study)

    for finding in examine(read_facts(write_study(study, tmp_path), ALL)).findings:
        assert finding.remedy or finding.severity is Severity.NOTE


@pytest.mark.parametrize("name", [*FIRING, "nothing"])
def test_what_training_refuses_is_an_error_in_the_same_words_and_nothing_else_is(tmp_path: Path, name: str) -> None:
    study = sound()
    if name in FIRING:
        FIRING[name](study)
    case = write_study(study, tmp_path)
    report = examine(read_facts(case, ALL))
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]

    refused = refusal_of(case)

    if refused is None:
        assert {error.check for error in errors} <= set(STRICTER)
    else:
        assert any(refused.found in error.said and refused.expected in error.said for error in errors)
        assert any(refused.remedy == error.remedy for error in errors)
        assert not report.usable


def test_a_sound_study_has_no_finding_with_any_choice_of_modalities(tmp_path: Path) -> None:
    case = write_study(sound(), tmp_path)

    for chosen in (ALL, (Modality.T1C, Modality.T2W, Modality.T2F), (Modality.T2F,)):
        assert examine(read_facts(case, chosen)).findings == ()


def test_only_the_modalities_asked_for_are_examined(tmp_path: Path) -> None:
    study = sound()
    FIRING["blur"](study)  # t1c
    case = write_study(study, tmp_path)

    assert examine(read_facts(case, (Modality.T2W, Modality.T2F))).findings == ()


def test_every_refused_file_is_named_not_only_the_first(tmp_path: Path) -> None:
    study = sound()
    study.damage = lambda paths: [paths[kind].write_bytes(b"") for kind in ("t1c", "t2f", "seg")]

    report = examine(read_facts(write_study(study, tmp_path), ALL))

    assert [finding.said.partition(":")[0][-11:] for finding in report.findings] == [
        "-t1c.nii.gz",
        "-t2f.nii.gz",
        "-seg.nii.gz",
    ]


def test_an_image_cut_off_and_filled_with_a_constant_is_found(tmp_path: Path) -> None:
    study = sound()
    image = study.images[Modality.T1N]
    quarter = image.shape[0] // 4
    where = study.brain.copy()
    where[quarter:] = False
    image[where] = 99

    (finding,) = examine(read_facts(write_study(study, tmp_path), ALL)).findings

    assert finding.check == "cut off"
    assert finding.said.startswith("t1n: cut off, 0 or constant in ")


def test_a_brain_that_runs_into_the_top_of_the_volume_is_cut_off(tmp_path: Path) -> None:
    study = sound()
    middle = study.brain.shape[2] // 2
    study.images = {modality: image[:, :, :middle].copy() for modality, image in study.images.items()}
    assert study.label is not None
    study.label = study.label[:, :, :middle].copy()
    area = np.count_nonzero(study.brain[:, :, -1])

    said = [f.said for f in examine(read_facts(write_study(study, tmp_path), ALL)).findings if f.check == "cut off"]

    assert said == [f"the brain runs into the volume's top ({area} mm2)"]


def test_blur_along_one_axis_of_a_slice_is_blur_where_another_image_is_sharp(tmp_path: Path) -> None:
    study = sound()
    image = study.images[Modality.T1N]
    sagittal = image[np.arange(64) // 5 * 5]
    study.images[Modality.T1N] = np.where(study.brain, np.maximum(sagittal, 1), 0).astype(np.int16)

    said = {f.check: f.said for f in examine(read_facts(write_study(study, tmp_path), ALL)).findings}

    assert said["blur"] == "t1n: blurred left-right, where another modality is sharp"
    assert said["thick slices"] == "t1n: thick slices, stacked left-right: usual, but what is small is lost between them"


def test_one_voxel_at_the_ceiling_of_its_type_is_said_to_be_harmless(tmp_path: Path) -> None:
    study = sound()
    image = study.images[Modality.T2F]
    image[tuple(np.argwhere(image)[0])] = 32767

    (finding,) = examine(read_facts(write_study(study, tmp_path), ALL)).findings

    assert finding.said == (
        "t2f: 1 voxel has the highest intensity, 32767, which is the most that int16 holds: clipped there, or stretched to it "
        "(preparing cuts more than that anyway)"
    )


def test_the_ceiling_of_a_scaled_file_is_scaled_too(tmp_path: Path) -> None:
    study = sound()
    image = study.images[Modality.T2F]
    image[tuple(np.argwhere(image)[0])] = 32767
    study.headers["t2f"] = {"scl_slope": 0.5, "scl_inter": 0.0}

    (finding,) = examine(read_facts(write_study(study, tmp_path), ALL)).findings

    assert "16383.5, which is the most that int16 holds" in finding.said


def test_forms_that_disagree_are_a_warning(tmp_path: Path) -> None:
    study = sound()
    elsewhere = study.affine.copy()
    elsewhere[2, 3] += 7
    study.headers = {"t1c": {"qform": elsewhere}}

    (finding,) = examine(read_facts(write_study(study, tmp_path), ALL)).findings

    assert (finding.check, finding.severity) == ("orientation", Severity.WARNING)
    assert finding.said == "qform and sform of t1c place voxels up to 7 mm apart: the sform is used"


def test_equal_images_of_two_cases_are_found_however_they_are_stored(tmp_path: Path) -> None:
    study = sound()
    first = examine(read_facts(write_study(study, tmp_path, "BraTS-SSA-00002-000"), ALL))
    study.images = {m: np.pad(image.astype(np.float32), 1) for m, image in study.images.items()}
    assert study.label is not None
    study.label = np.pad(study.label, 1)
    study.images[Modality.T1N][30, 30, 30] += 1
    second = examine(read_facts(write_study(study, tmp_path, "BraTS-SSA-00003-000"), ALL))

    one, two = examine_across([first, second])

    assert [f.said for f in one.findings] == ["the same t1c, t2w, t2f as BraTS-SSA-00003-000"]
    assert [f.said for f in two.findings] == ["the same t1c, t2w, t2f as BraTS-SSA-00002-000"]
    assert one.worst is Severity.WARNING


def test_visits_and_known_pairs_are_one_patient_and_others_are_not() -> None:
    ids = ["BraTS-SSA-00002-000", "BraTS-SSA-00002-001", "BraTS-SSA-00003-000", "BraTS2021_00626", "BraTS2021_00758"]

    reports = examine_across([CaseReport(case_id, ()) for case_id in ids])

    assert [bool(report.findings) for report in reports] == [True, True, False, True, True]
    assert reports[3].findings[0].said == "the same patient as BraTS2021_00758: kept on one side of the split"


def test_nothing_is_found_across_no_case_and_one() -> None:
    alone = CaseReport("a", (), {"t1c": "00"})

    assert examine_across([]) == []
    assert examine_across([alone]) == [alone]
    assert all(check([alone]) == {} for check in ACROSS.values())


def test_findings_come_the_worst_first_and_else_in_the_order_of_the_checks() -> None:
    found = [note("a"), warning("b", "do"), note("c"), warning("d", "do")]

    assert [finding.said for finding in worst_first(found)] == ["b", "d", "a", "c"]


def test_a_case_counts_once_for_a_check_and_a_severity(tmp_path: Path) -> None:
    study = sound()
    study.damage = lambda paths: [paths[kind].write_bytes(b"") for kind in ("t1c", "t2f")]
    report = examine(read_facts(write_study(study, tmp_path), ALL))

    rows = {row.name: row for row in tally([report, report])}

    assert rows["readable"].counts == {"error": 2}
    assert rows["readable"].remedy == "copy the file again from its source"
    assert rows["grid"].counts == {}
    assert rows["grid"].looks_for.startswith("Files of one case with another shape or affine")
    assert set(rows) == {"files", *CHECKS, *ACROSS}
