"""From two folders of files to scores: which belong together, what is refused, what the figures are."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from brainunet.config import PreprocessConfig
from brainunet.data.preprocess import prepare
from brainunet.errors import DataError, GeometryMismatch, UnknownLabel, UnreadableVolume, UnsupportedConvention
from brainunet.evaluation.matching import Matched, case_of, match_files
from brainunet.evaluation.of_model import on_full_grid
from brainunet.evaluation.results import summarise, write_cases, write_summary
from brainunet.evaluation.scoring import Conventions, score_all, score_files
from brainunet.labels import DEFAULT_MODALITIES, Convention
from brainunet.records import CaseScore, CaseScoreRow, Problem
from tests.support.cases import AFRICA, GLI_2021, assert_helps, assert_reads_well, only_case, tumour, write_case
from tests.support.nifti import nifti, write_nifti

Labels = npt.NDArray[np.uint8]


def matched(folder: Path, predicted: Any, truth: Any, case_id: str = AFRICA, **header: Any) -> Matched:
    """A prediction and a truth on disk; ``header`` is the prediction's."""
    return Matched(
        case_id,
        write_nifti(folder / "pred" / f"{case_id}-seg.nii.gz", predicted, **header),
        write_nifti(folder / "truth" / f"{case_id}-seg.nii.gz", truth),
    )


def dice_of(pair: Matched, conventions: Conventions = Conventions()) -> dict[str, float | None]:  # noqa: B008 - frozen
    return {row.structure: row.value for row in score_files(pair, conventions, ["dice"]).rows}


@pytest.mark.parametrize(
    ("name", "case_id"),
    [
        (f"{AFRICA}-seg.nii.gz", AFRICA),
        (f"{AFRICA}.nii.gz", AFRICA),
        (f"{GLI_2021}_seg.nii", GLI_2021),
        (f"{GLI_2021}-SEG.NII.GZ", GLI_2021),
        (f"{GLI_2021}.nii.gz", GLI_2021),
        ("patient 7.nii.gz", "patient 7"),
        (f"{AFRICA}-t1c.nii.gz", None),
        (f"{GLI_2021}_flair.nii.gz", None),
        (f"{AFRICA}-seg.json", None),
        (f".{AFRICA}-seg.nii.gz", None),
        (".nii.gz", None),
    ],
)
def test_a_segmentation_is_known_by_its_name(name: str, case_id: str | None) -> None:
    assert case_of(name) == case_id


def test_files_are_matched_by_case_whatever_the_folders_and_the_endings(tmp_path: Path) -> None:
    for path in ("p/a-seg.nii.gz", "p/deep/er/b.nii", "t/a/a_seg.nii.gz", "t/a/a_t1c.nii.gz", "t/b-seg.nii.gz"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()

    pairs, problems = match_files(tmp_path / "p", tmp_path / "t")

    assert [(pair.case_id, pair.predicted.name, pair.truth.name) for pair in pairs] == [
        ("a", "a-seg.nii.gz", "a_seg.nii.gz"),
        ("b", "b.nii", "b-seg.nii.gz"),
    ]
    assert problems == []


def test_what_has_no_partner_or_two_is_named_once_and_the_others_go_on(tmp_path: Path) -> None:
    for path in ("p/a.nii", "p/only-p.nii", "p/two.nii", "p/two-seg.nii", "t/a.nii", "t/only-t.nii", "t/two.nii"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()

    pairs, problems = match_files(tmp_path / "p", tmp_path / "t")

    assert [pair.case_id for pair in pairs] == ["a"]
    reasons = {problem.case_id: problem.reason for problem in problems}
    assert len(problems) == len(reasons)
    assert "a prediction (only-p.nii) without a truth" in reasons["only-p"]
    assert "a truth (only-t.nii) without a prediction" in reasons["only-t"]
    assert "2 files (p/two-seg.nii and p/two.nii)" in reasons["two"]
    for case_id, reason in reasons.items():
        assert_reads_well(reason, case_id)


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_that_is_not_there_or_holds_no_segmentation_is_refused(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "cases"
    if made:
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a-t1c.nii.gz").touch()
    with pytest.raises(DataError) as refused:
        match_files(folder, tmp_path)

    assert_helps(refused.value, where="cases", found="no file named" if made else "No such file", exit_code=3)


def test_a_truth_against_itself_is_perfect(tmp_path: Path) -> None:
    assert dice_of(matched(tmp_path, tumour(), tumour())) == dict.fromkeys(("ET", "TC", "WT", "NETC", "SNFH"), 1.0)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_files_in_any_orientation_of_one_grid_give_the_same_scores(
    tmp_path: Path, order: tuple[int, int, int], flips: tuple[int, int, int]
) -> None:
    truth, predicted = tumour(), np.roll(tumour(), 1, axis=0)
    # voxel i of stored axis a lies at i along axis order[a], or at the far end minus i
    affine = np.eye(4)
    for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
        affine[:3, axis] = flip * np.eye(3)[source]
        affine[source, 3] = 0 if flip > 0 else truth.shape[source] - 1
    stored = predicted.transpose(order)[tuple(slice(None, None, flip) for flip in flips)]

    turned = dice_of(matched(tmp_path / "turned", stored, truth, sform=affine))

    assert turned == dice_of(matched(tmp_path / "plain", predicted, truth))
    assert turned["WT"] == pytest.approx(0.75)


def test_two_grids_are_refused_with_both_in_words(tmp_path: Path) -> None:
    moved = np.eye(4)
    moved[2, 3] = 3
    with pytest.raises(GeometryMismatch) as refused:
        dice_of(matched(tmp_path, tumour(), tumour(), sform=moved))

    assert_helps(refused.value, where=f"prediction {AFRICA}-seg.nii.gz", found="(0.00, 0.00, 3.00)", exit_code=3)
    assert "the grid of its truth: shape (12, 11, 10)" in str(refused.value)
    assert "(0.00, 0.00, 0.00)" in refused.value.expected


def test_a_prediction_is_read_by_our_numbers_and_four_is_refused_unless_it_was_said(tmp_path: Path) -> None:
    ours = matched(tmp_path / "ours", tumour(enhancing=3), tumour(enhancing=4), GLI_2021)
    theirs = matched(tmp_path / "theirs", tumour(enhancing=4), tumour(enhancing=4), GLI_2021)

    assert dice_of(ours)["ET"] == 1.0  # the truth's numbers are told by its name
    with pytest.raises(UnknownLabel) as refused:
        dice_of(theirs)
    assert_helps(refused.value, where=f"prediction {GLI_2021}-seg.nii.gz", found="label 4", exit_code=3)
    assert "--pred-convention" in refused.value.remedy
    assert dice_of(theirs, Conventions(Convention.BRATS2021))["ET"] == 1.0


def test_a_truth_whose_name_tells_nothing_needs_a_word(tmp_path: Path) -> None:
    pair = matched(tmp_path, tumour(), tumour(), "patient7")
    with pytest.raises(UnsupportedConvention) as refused:
        dice_of(pair)

    assert_helps(refused.value, where="patient7", found="does not tell", exit_code=3)
    assert dice_of(pair, Conventions(truth=Convention.BRATS2023))["WT"] == 1.0


def test_a_post_treatment_truth_is_refused_whatever_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedConvention, match="resection cavity"):
        dice_of(matched(tmp_path, tumour(), tumour(), "BraTS-GLI-00005-100"), Conventions(truth=Convention.BRATS2023))


def test_a_prediction_of_nothing_is_scored_and_a_truth_of_nothing_is_refused(tmp_path: Path) -> None:
    nothing = np.zeros_like(tumour())

    rows = score_files(matched(tmp_path / "p", nothing, tumour()), Conventions(), ["dice", "hd95_mm", "lesion_fn"]).rows
    assert {row.metric: row.value for row in rows if row.structure == "WT"} == {"dice": 0, "hd95_mm": 374, "lesion_fn": 1}
    with pytest.raises(DataError, match=r"truth .*label 0 everywhere"):
        dice_of(matched(tmp_path / "t", tumour(), nothing))
    with pytest.raises(DataError, match=r"prediction .*label 2 everywhere"):
        dice_of(matched(tmp_path / "two", nothing + 2, tumour()))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes"),
        (b"not an image", "a header that is not NIfTI"),
        (nifti(tumour())[:-9], "fewer bytes than its header promises"),
        (nifti(np.full((4, 4, 4), np.nan, np.float32)), "NaN"),
        (nifti(np.zeros((4, 4, 4, 2), np.uint8)), "4 axes"),
        (nifti(np.full((12, 11, 10), 0.5, np.float32)), "label 0.5"),
        (nifti(tumour().astype(np.int16) - 1), "label -1"),
    ],
)
@pytest.mark.parametrize("role", ["prediction", "truth"])
def test_a_file_that_is_no_segmentation_is_named_with_its_role(tmp_path: Path, content: bytes, said: str, role: str) -> None:
    good, bad = write_nifti(tmp_path / "good.nii", tumour()), tmp_path / "bad.nii"
    bad.write_bytes(content)
    pair = Matched(AFRICA, bad, good) if role == "prediction" else Matched(AFRICA, good, bad)

    scores, problems = score_all([(AFRICA, lambda: score_files(pair, Conventions(), ["dice"]))])

    assert scores == []
    (problem,) = problems
    assert said in problem.reason
    assert_reads_well(problem.reason, f"{role} bad.nii")


def test_a_file_that_went_away_is_a_problem_and_the_next_case_is_scored(tmp_path: Path) -> None:
    pair = matched(tmp_path, tumour(), tumour())
    gone = Matched("gone", tmp_path / "gone.nii", pair.truth)
    told: list[int] = []

    scores, problems = score_all(
        [(p.case_id, lambda p=p: score_files(p, Conventions(truth=Convention.BRATS2023), ["dice"])) for p in (gone, pair)],  # type: ignore[misc]
        on_case=lambda: told.append(1),
    )

    assert [score.case_id for score in scores] == [AFRICA]
    assert [problem.case_id for problem in problems] == ["gone"]
    assert len(told) == 2
    with pytest.raises(UnreadableVolume):
        score_files(gone, Conventions(truth=Convention.BRATS2023), ["dice"])


def case(case_id: str, value: float | None) -> CaseScore:
    reason = "the truth is empty" if value is None else None
    return CaseScore(case_id, (CaseScoreRow("ET", "dice", value, reason),))


def test_a_summary_holds_mean_quartiles_and_how_many_have_a_value() -> None:
    scores = [case(str(i), value) for i, value in enumerate([0.0, 0.1, 0.2, 0.3, 0.9, None])]

    summary = summarise(scores, [Problem("x", "torn")], ["dice"], {"pred": "here"})

    figures = summary["scores"]["ET"]["dice"]
    assert figures == {
        "mean": pytest.approx(0.3),
        "median": 0.2,
        "lower_quartile": 0.1,
        "upper_quartile": 0.3,
        "n": 5,
        "missing": 1,
    }
    assert summary["cases"] == 6
    assert summary["problems"] == [{"case_id": "x", "reason": "torn"}]
    assert summary["settings"]["pred"] == "here"
    assert set(summary["versions"]) == {"brainunet", "python", "numpy", "scipy"}
    assert summary["scores"]["WT"]["dice"]["mean"] is None


def test_a_figure_that_no_case_has_is_none_in_json_too(tmp_path: Path) -> None:
    write_summary(tmp_path / "summary.json", summarise([case("a", None)], [], ["dice"], {}))

    read = json.loads((tmp_path / "summary.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert read["scores"]["ET"]["dice"] == {
        **dict.fromkeys(("mean", "median", "lower_quartile", "upper_quartile")),
        "n": 0,
        "missing": 1,
    }


def test_the_rows_of_cases_can_be_read_back_whatever_the_names(tmp_path: Path) -> None:
    names = ['comma, "quote"', "line\nbreak", "Müller", "torn \udcff"]
    write_cases(tmp_path / "cases.csv", [*(case(name, 0.123456789012) for name in names), case("none", None)])

    with (tmp_path / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["case_id"] for row in rows] == [*names[:3], "torn \\udcff", "none"]
    assert {row["value"] for row in rows[:4]} == {"0.123456789"}
    assert (rows[4]["value"], rows[4]["reason"]) == ("", "the truth is empty")
    assert list(rows[0]) == ["case_id", "region", "metric", "value", "reason"]


def test_a_crop_goes_back_to_where_it_was_cut_out(tmp_path: Path) -> None:
    write_case(tmp_path)
    prepared = prepare(only_case(tmp_path), DEFAULT_MODALITIES, PreprocessConfig(crop_margin_voxels=0))
    assert prepared.label is not None
    assert prepared.label.shape != prepared.shape

    np.testing.assert_array_equal(on_full_grid(prepared.label, prepared), tumour())
