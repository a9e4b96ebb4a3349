"""Every case scored once by a model that has not seen it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from brainunet.cli import main as brainunet
from tests.support.cases import write_case
from tests.support.simulation import run
from tests.support.trainings import IDS, TINY, summary_of, write_cases


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("data"))


def test_crossval_scores_every_case_once_by_a_model_that_has_not_seen_it(data: Path, tmp_path: Path) -> None:
    ended = run(brainunet, "crossval", "--by", "centre", "--data", data, "--out", tmp_path / "out", *TINY, "--json")

    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    assert list(summary["folds"]) == ["CRV", "MEDHUB", "NKDC"]
    left_out = list[str]()
    for name in summary["folds"]:
        split = json.loads((tmp_path / "out" / "folds" / name / "split.json").read_text())
        assert not set(split["train"]) & set(split["validation"])
        left_out += split["validation"]
    assert sorted(left_out) == IDS
    means = [summary["folds"][name]["dice"]["WT"] for name in summary["folds"]]
    assert summary["dice_over_all_cases"]["WT"] == pytest.approx(sum(means) / 3)  # two cases each
    assert summary["empty_truths"] == {"ET": 0, "TC": 0, "WT": 0, "NETC": 0, "SNFH": 0}


@pytest.mark.slow
def test_crossval_taken_up_again_does_nothing_twice(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(brainunet, "crossval", "--folds", "2", "--data", data, "--out", out, *TINY).code == 0
    before = (out / "folds" / "fold-1" / "last.safetensors").stat().st_mtime_ns

    ended = run(brainunet, "crossval", "--out", out, "--resume")

    assert ended.code == 0, ended.err
    assert (out / "folds" / "fold-1" / "last.safetensors").stat().st_mtime_ns == before
    assert "all cases" in ended.out


@pytest.mark.slow
def test_crossval_ends_no_training_by_the_cases_that_are_left_out(data: Path, tmp_path: Path) -> None:
    still = ("--set", "patience=1", "--set", "score_every=1", "--set", "train.learning_rate=1e-12")
    ended = run(brainunet, "crossval", "--folds", "2", "--data", data, "--out", tmp_path / "out", *TINY, *still)

    assert ended.code == 0, ended.err
    assert "patience = 1 is left out" in ended.err
    for name in ("fold-1", "fold-2"):
        told = summary_of(tmp_path / "out" / "folds" / name)
        assert (told["steps"], told["ended_by"]) == (6, "steps")


@pytest.mark.parametrize("command", ["train", "crossval"])
def test_cases_without_a_segmentation_are_named_where_none_is_left(command: str, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / IDS[0], tmp_path / "cases" / IDS[0], ignore=shutil.ignore_patterns("*-seg*"))

    ended = run(brainunet, command, "--data", tmp_path / "cases", "--out", tmp_path / "out", *TINY)

    assert (ended.code, f"{IDS[0]}: no file for seg" in ended.err) == (3, True), ended.err


@pytest.mark.slow
def test_crossval_deals_once_and_a_case_lost_half_way_moves_no_other(data: Path, tmp_path: Path) -> None:
    cases, out = tmp_path / "cases", tmp_path / "out"
    shutil.copytree(data, cases)
    assert run(brainunet, "crossval", "--folds", "2", "--data", cases, "--out", out, *TINY).code == 0
    dealt = [json.loads((out / "folds" / name / "split.json").read_text()) for name in ("fold-1", "fold-2")]
    shutil.rmtree(out / "folds" / "fold-2")  # as if it had not begun
    shutil.rmtree(cases / IDS[0])

    ended = run(brainunet, "crossval", "--out", out, "--resume")

    assert (ended.code, f"begun with {IDS[0]}" in ended.err) == (3, True), ended.err
    shutil.copytree(data / IDS[0], cases / IDS[0])
    assert run(brainunet, "crossval", "--out", out, "--resume").code == 0
    assert [json.loads((out / "folds" / name / "split.json").read_text()) for name in ("fold-1", "fold-2")] == dealt


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--by", "centre"), "whose name tells no centre"),
        (("--folds", "5"), "5 folds of 2 patients"),
        (("--by", "age"), "age"),
        (("--by", "centre", "--folds", "3"), "--folds: --by centre"),
        (("--set", "split.by=none"), "split.by: none, but expected fold or centre"),
    ],
)
def test_crossval_of_what_can_not_be_parted_is_refused(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    for case in ("BraTS2021_00001", "BraTS2021_00002"):
        write_case(tmp_path / "data", case)
    ended = run(brainunet, "crossval", "--data", tmp_path / "data", "--out", tmp_path / "out", *TINY, *arguments)

    assert ended.code in (2, 4)
    assert said in ended.err
    assert not (tmp_path / "out").exists()
