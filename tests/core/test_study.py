"""A training of one machine: what it leaves, that it repeats, ends when it should, and says what can't be."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet.cli import main as brainunet
from brainunet.commands.train import new_study
from brainunet.config import TrainConfig, ValidationConfig
from brainunet.data.phantom import write_phantoms
from brainunet.labels import Label
from brainunet.modelfile import read_model
from brainunet.settings import load
from brainunet.starter import STARTER
from brainunet.study.fit import Scored, fit
from brainunet.study.run import Study
from brainunet.study.settings import FitConfig, stage_names, stage_settings
from brainunet.training.checkpoint import Checkpoint
from tests.support.cases import tumour, write_case
from tests.support.nets import network
from tests.support.pace import first_fast
from tests.support.prepared import prepared_case
from tests.support.simulation import run
from tests.support.trainings import IDS, TINY, rows_of, summary_of, trained, write_cases


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("data"))


def test_it_leaves_models_with_their_cards_curves_and_what_it_was(data: Path, tmp_path: Path) -> None:
    ended = trained(data, tmp_path / "out", "--validation", IDS[0])

    assert ended.code == 0, ended.err
    summary = summary_of(tmp_path / "out")
    assert (summary["steps"], summary["ended_by"], summary["train_cases"], summary["validation_cases"]) == (6, "steps", 5, 1)
    assert json.loads((tmp_path / "out" / "split.json").read_text()) == {"train": IDS[1:], "validation": [IDS[0]]}
    assert [int(row["step"]) for row in rows_of(tmp_path / "out" / "loss.csv")] == [1, 2, 3, 4, 5, 6]
    assert {int(row["step"]) for row in rows_of(tmp_path / "out" / "scores.csv")} == {4, 6}
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    weights, card = read_model(tmp_path / "out" / "last.safetensors")
    assert (card.trained_on, card.model.preset, card.scores["validation"].cases) == ("real cases", "brainunet-nano", 1)
    assert weights.is_finite()


@pytest.mark.slow  # of the trainer alone: test_training.py
def test_the_same_seed_gives_the_same_model_and_another_seed_another(data: Path, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert trained(data, tmp_path / name, "--seed", seed, "--validation", "none").code == 0
        digests.append(read_model(tmp_path / name / "last.safetensors")[1].weights_sha256)

    assert digests[0] == digests[1] != digests[2]


def test_a_region_that_no_truth_has_is_told_without_a_figure(tmp_path: Path) -> None:
    without_et = np.where(tumour() == Label.ET, Label.NETC, tumour()).astype(np.uint8)
    for case in IDS[:3]:
        write_case(tmp_path / "data", case, label=tumour() if case == IDS[1] else without_et)

    ended = trained(tmp_path / "data", tmp_path / "one", "--validation", IDS[0], "--set", "train.steps=1")
    assert ended.code == 0, ended.err
    assert "last model (step 1): Dice ET in no case, TC 0." in ended.out
    assert "; one case\n" in ended.out
    assert summary_of(tmp_path / "one")["empty_truths"] == {"ET": 1, "TC": 0, "WT": 0, "NETC": 0, "SNFH": 0}

    ended = trained(tmp_path / "data", tmp_path / "two", "--validation", f"{IDS[0]},{IDS[1]}", "--set", "train.steps=1")
    assert ended.code == 0, ended.err
    assert re.search(r"last model \(step 1\): Dice ET 0\.\d{3} \(1 case without\), TC .*; mean of 2 cases\n", ended.out)
    told = {row["region"]: (row["n"], row["empty"]) for row in rows_of(tmp_path / "two" / "scores.csv")}
    assert told == {"ET": ("2", "1"), "TC": ("2", "0"), "WT": ("2", "0"), "NETC": ("2", "0"), "SNFH": ("2", "0")}


def fitted(tmp_path: Path, **settings: Any) -> tuple[int, str, list[Scored]]:
    train = TrainConfig(steps=12, patch=(16, 16, 16), batch_size=1, precision="fp32", learning_rate=1e-12)
    config = FitConfig(train=train, validation=ValidationConfig(window=None), score_every=2, **settings)
    cases = [prepared_case(seed=seed) for seed in range(2)]
    made = fit(network(), cases, cases[:1], config, checkpoint=Checkpoint(tmp_path / "c.ckpt", "this"))
    return len(made.losses), made.ended_by, list(made.scores)


def test_it_ends_early_when_scorings_in_a_row_bring_nothing_better(tmp_path: Path) -> None:
    steps, why, scores = fitted(tmp_path, patience=3)  # weights that don't move score alike

    assert (steps, why) == (8, "patience")  # the first scoring, and three that were no better
    assert [scored.step for scored in scores] == [2, 4, 6, 8]


def test_by_the_clock_it_ends_by_minutes_with_a_scoring_of_the_last_step(tmp_path: Path) -> None:
    steps, why, scores = fitted(tmp_path, minutes=0.002)

    assert why == "minutes"
    assert scores[-1].step == steps
    assert scores[-1].seconds >= 0.12


@pytest.mark.slow  # of a resume: test_study_resumed.py
def test_a_finished_training_taken_up_again_is_finished(tmp_path: Path) -> None:
    first, again = fitted(tmp_path), fitted(tmp_path)

    assert first[0] == again[0] == 12
    assert [scored.score for scored in first[2]] == [scored.score for scored in again[2]]


def test_from_a_model_its_card_gives_the_network_and_the_line(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = run(brainunet, "train", "--data", data, "--out", out, "--init", "starter", "--validation", "none", *TINY[2:])

    assert ended.code == 0, ended.err
    card = read_model(out / "last.safetensors")[1]
    assert card.parent_sha256 == read_model(STARTER)[1].weights_sha256
    assert card.trained_on == "phantoms and real cases"
    assert card.scores == {}
    assert summary_of(out)["best"] is None


@pytest.mark.parametrize(
    ("made_up", "of_others", "flag", "seen"),
    first_fast(
        (1, IDS[:1], (), "phantoms and real cases"),
        (2, [], (), "phantoms"),
        (0, IDS[:2], (), "real cases"),
        (0, IDS[:2], ("--phantoms",), "phantoms"),
    ),
)
def test_a_model_of_made_up_cases_says_so_without_being_told(
    made_up: int, of_others: Sequence[str], flag: tuple[str, ...], seen: str, data: Path, tmp_path: Path
) -> None:
    if made_up:
        write_phantoms(tmp_path / "cases", cases=made_up, style="gli", seed=0, shape=(32, 32, 32), centres=("LILY", "MEDHUB"))
    for case in of_others:
        shutil.copytree(data / case, tmp_path / "cases" / case)

    ended = trained(tmp_path / "cases", tmp_path / "out", "--validation", "none", *flag)

    assert ended.code == 0, ended.err
    card = read_model(tmp_path / "out" / "last.safetensors")[1]
    assert card.trained_on == summary_of(tmp_path / "out")["trained_on"] == seen
    assert card.title.startswith(f"brainunet-nano, trained on 2 {seen}, step")


REFUSED: Sequence[tuple[tuple[str, ...], int, str]] = (
    (("--init", "starter"), 4, "model.preset = brainunet-nano, but expected brainunet-lite"),
    (("--folds", "9"), 4, "9 folds of 6 patients, but expected 2 to 6"),
    (("--folds", "3", "--fold", "4"), 4, "--fold: 4, but expected 1 to 3"),
    (("--leave-out", "CRX"), 4, "did you mean CRV"),
    (("--validation", "BraTS-SSA-00002-001"), 4, "did you mean BraTS-SSA-00002-000"),
    (("--validation", ",".join(IDS)), 4, "no case left to train on"),
    (("--validation", IDS[0], "--folds", "2"), 2, "several ways to keep cases aside"),
    (("--fold", "2"), 2, "--fold: no --folds"),
    (("--minutes", "1"), 2, "--minutes: it came with --set train.steps"),
    (("--validation", ","), 2, "--validation: no name"),
    (("--validation", "", "--folds", "2"), 2, "several ways to keep cases aside"),
    (("--stage", "pretrian"), 2, "did you mean pretrain"),
    (("--set", "train.learning_rat=1"), 4, "did you mean learning_rate"),
    (("--set", "patience=2", "--validation", "none"), 4, "no validation case"),
    (("--init", "nowhere.safetensors"), 4, "nowhere.safetensors"),
)


@pytest.mark.parametrize(("arguments", "code", "said"), REFUSED, ids=[" ".join(words) for words, _, _ in REFUSED])
def test_what_can_not_be_is_refused_with_words(
    arguments: tuple[str, ...], code: int, said: str, data: Path, tmp_path: Path
) -> None:
    given = (*TINY[2:], "--preset", "brainunet-lite") if "--init" in arguments else TINY
    ended = run(brainunet, "train", "--data", data, "--out", tmp_path / "out", *given, *arguments)

    assert ended.code == code, ended.err
    assert said in ended.err


def test_steps_asked_for_end_a_training_whose_stage_goes_by_the_clock(tmp_path: Path) -> None:
    def study(*settings: str) -> Study:
        return new_study(tmp_path, tmp_path, "random", "cpu", {}, False, None, None, [*settings])

    assert study().config.minutes == 20
    assert (study("train.steps=7").config.minutes, study("train.steps=7").config.train.steps) == (None, 7)


@pytest.mark.parametrize("name", stage_names())
def test_a_committed_stage_is_whole_and_known(name: str) -> None:
    assert load(FitConfig, base=stage_settings(name)).train.schedule == "cosine"


def test_the_first_stage_has_the_authors_numbers() -> None:
    train = load(FitConfig, base=stage_settings("pretrain")).train

    assert (train.optimizer, train.learning_rate, train.batch_size) == ("adam", 1e-4, 2)
    assert (train.loss.name, train.loss.alpha, train.loss.beta) == ("tversky", 0.7, 0.3)
    assert (train.loss.weights, train.loss.smooth_voxels) == ((0.5, 1.0, 2.0, 1.5), 1e-6)
