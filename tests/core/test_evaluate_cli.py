"""``brainunet evaluate`` as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from brainunet.metrics import METRICS
from tests.support.cases import AFRICA, tumour
from tests.support.evaluated import OTHER, evaluate, rows_of, summary_of, two_cases
from tests.support.nifti import write_nifti

PNG = b"\x89PNG\r\n\x1a\n"
DICE = ("--metrics", "dice")  # where the figures are not what it is about


def test_two_folders_give_a_row_for_each_figure_a_summary_and_a_picture(tmp_path: Path) -> None:
    pred, truth = two_cases(tmp_path)

    ended = evaluate("--pred", pred, "--truth", truth, "--out", tmp_path / "out")

    assert ended.code == 0, ended.err
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2 * 5 * len(METRICS)
    values = {(row["case_id"], row["region"], row["metric"]): row["value"] for row in rows}
    assert values[AFRICA, "WT", "dice"] == "1"
    assert values[OTHER, "WT", "dice"] == "0.75"  # 48 of 64 voxels
    assert values[OTHER, "WT", "hd95_mm"] == "1"
    assert values[OTHER, "WT", "truth_volume_ml"] == "0.064"
    wt = summary_of(tmp_path / "out")["scores"]["WT"]["dice"]
    assert (wt["mean"], wt["median"], wt["lower_quartile"], wt["n"], wt["missing"]) == (0.875, 0.875, 0.8125, 2, 0)
    assert (tmp_path / "out" / "scores.png").read_bytes().startswith(PNG)
    assert "2 cases scored, 0 left out" in ended.out
    assert all(metric in ended.out for metric in METRICS)


def test_the_summary_says_what_it_depends_on(tmp_path: Path) -> None:
    pred, truth = two_cases(tmp_path)

    ended = evaluate("--pred", pred, "--truth", truth, "--out", tmp_path / "out", "--metrics", "dice, hd95_mm", "--json")

    summary = json.loads(ended.out)
    assert summary == summary_of(tmp_path / "out")
    assert summary["settings"] == {
        "pred": str(pred),
        "truth": str(truth),
        "pred_convention": "brats2023",
        "truth_convention": "told by the file names",
        "metrics": ["dice", "hd95_mm"],
        "lesions": {"dilations": 3, "smallest_mm3": 50.0},
        "missed_mm": 374.0,
    }
    assert {row["metric"] for row in rows_of(tmp_path / "out")} == {"dice", "hd95_mm"}


def test_what_cannot_be_scored_is_said_and_the_others_are(tmp_path: Path) -> None:
    pred, truth = two_cases(tmp_path)
    (pred / f"{OTHER}-seg.nii.gz").write_bytes(b"")
    write_nifti(pred / "BraTS-SSA-00004-000.nii.gz", tumour())

    ended = evaluate("--pred", pred, "--truth", truth, "--out", tmp_path / "out", *DICE)

    assert ended.code == 0
    assert f"left out: prediction {OTHER}-seg.nii.gz: 0 bytes" in ended.err
    assert "left out: BraTS-SSA-00004-000: a prediction (BraTS-SSA-00004-000.nii.gz) without a truth" in ended.err
    assert "1 case scored, 2 left out" in ended.out
    assert {row["case_id"] for row in rows_of(tmp_path / "out")} == {AFRICA}
    assert [problem["case_id"] for problem in summary_of(tmp_path / "out")["problems"]] == [OTHER, "BraTS-SSA-00004-000"]


def test_where_nothing_can_be_scored_it_ends_with_3_and_leaves_no_picture_of_another_time(tmp_path: Path) -> None:
    pred, truth = two_cases(tmp_path)
    evaluate("--pred", pred, "--truth", truth, "--out", tmp_path / "out", *DICE)
    for path in pred.iterdir():
        path.write_bytes(b"")

    ended = evaluate("--pred", pred, "--truth", truth, "--out", tmp_path / "out", *DICE)

    assert ended.code == 3
    assert "error: pred: none of 2 cases could be scored" in ended.err
    assert rows_of(tmp_path / "out") == []
    assert len(summary_of(tmp_path / "out")["problems"]) == 2
    assert not (tmp_path / "out" / "scores.png").exists()


def test_of_many_problems_some_are_said_and_all_are_kept(tmp_path: Path) -> None:
    pred, truth = two_cases(tmp_path)
    for number in range(100, 130):
        (pred / f"BraTS-SSA-00{number}-000.nii.gz").touch()

    ended = evaluate("--pred", pred, "--truth", truth, "--out", tmp_path / "out", *DICE)

    assert len(ended.err.splitlines()) == 21
    assert "... and 10 more, all in" in ended.err
    assert len(summary_of(tmp_path / "out")["problems"]) == 30


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "evaluate: none of them, but expected --pred with --truth, or --model with --data"),
        (["--pred", "pred"], 2, "evaluate: --pred, but expected"),
        (["--pred", "pred", "--truth", "truth", "--data", "truth"], 2, "evaluate: --pred --truth --data, but expected"),
        (["--pred", "pred", "--truth", "truth", "--metrics", "dise"], 2, "'dise' (did you mean dice?)"),
        (["--pred", "pred", "--truth", "truth", "--metrics", ""], 2, "--metrics: ''"),
        (["--pred", "pred", "--truth", "truth", "--pred-convention", "brats2012"], 3, "--pred-convention: 'brats2012'"),
        (["--pred", "pred", "--truth", "truth", "--truth-convention", "brats2024"], 3, "resection cavity"),
        (["--pred", "pred", "--truth", "nowhere"], 3, "nowhere: No such file or directory"),
        (["--model", "m", "--data", "truth", "--pred-convention", "brats2021"], 2, "--pred-convention: given with --model"),
        (["--pred", "pred", "--truth", "truth", "--window", "96"], 2, "--window: given with --pred"),
        (["--model", "m", "--data", "truth"], 4, "m: No such file or directory"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    two_cases(tmp_path)
    monkeypatch.chdir(tmp_path)

    ended = evaluate(*arguments, "--out", "out")

    assert ended.code == code
    assert said in ended.err
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    pred, truth = two_cases(tmp_path)
    (tmp_path / "out").write_text("mine")

    ended = evaluate("--pred", pred, "--truth", truth, "--out", tmp_path / "out")

    assert ended.code == 2
    assert "expected a folder that you may write to" in ended.err
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("content", ['{"steps": 6}', "[]", "", '{"format": "brainunet-training"}'])
def test_the_summary_of_another_command_is_not_overwritten(content: str, tmp_path: Path) -> None:
    pred, truth = two_cases(tmp_path)
    summary = tmp_path / "out" / "summary.json"
    summary.parent.mkdir()
    summary.write_text(content)

    ended = evaluate("--pred", pred, "--truth", truth, "--out", tmp_path / "out")

    assert (ended.code, "summary.json of something else" in ended.err) == (2, True), ended.err
    assert [path.name for path in summary.parent.iterdir()] == ["summary.json"]
    assert summary.read_text() == content


def test_figures_without_a_value_are_marked_and_no_infinity_is_written(tmp_path: Path) -> None:
    small = np.where(tumour() == 3, 2, tumour())  # no enhancing tumour
    write_nifti(tmp_path / "pred" / f"{AFRICA}.nii.gz", np.zeros_like(small))
    write_nifti(tmp_path / "truth" / f"{AFRICA}.nii.gz", small)

    ended = evaluate("--pred", tmp_path / "pred", "--truth", tmp_path / "truth", "--out", tmp_path / "out")

    assert "none*" in ended.out
    assert "cases.csv says why" in ended.out
    (row,) = (row for row in rows_of(tmp_path / "out") if (row["region"], row["metric"]) == ("ET", "sensitivity"))
    assert (row["value"], row["reason"]) == ("", "the truth is empty: there was nothing to find")
    assert all(np.isfinite(float(row["value"])) for row in rows_of(tmp_path / "out") if row["value"])


def test_predictions_are_scored_without_torch(tmp_path: Path) -> None:
    pred, truth = two_cases(tmp_path)
    code = (
        "import sys; sys.modules.update(torch=None, torchio=None, flwr=None)\n"
        f"sys.argv = ['brainunet', 'evaluate', '--pred', {str(pred)!r}, '--truth', {str(truth)!r}, "
        f"'--out', {str(tmp_path / 'out')!r}, '--metrics', 'dice']\n"
        "from brainunet.cli import main; main()"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)

    assert ended.returncode == 0, ended.stderr
    assert len(rows_of(tmp_path / "out")) == 2 * 5


def test_of_cases_that_do_not_say_that_they_are_made_up_nothing_is_said(tmp_path: Path) -> None:
    pred, truth = two_cases(tmp_path)

    ended = evaluate("--pred", pred, "--truth", truth, "--out", tmp_path / "out", *DICE)

    assert summary_of(tmp_path / "out")["made_up_cases"] == 0
    assert "made up" not in ended.out + ended.err
