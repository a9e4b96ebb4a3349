"""A training of one machine: what it leaves, that it repeats, survives a kill, ends when it should, and says what can't be."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from brainunet.cli import main as brainunet
from brainunet.commands.train import new_study
from brainunet.config import TrainConfig, ValidationConfig
from brainunet.data.phantom import write_phantoms
from brainunet.modelfile import read_model, write_model
from brainunet.settings import load
from brainunet.starter import STARTER
from brainunet.study.fit import Fitted, Scored, fit
from brainunet.study.run import Study, What, keep_study, saved_study
from brainunet.study.settings import FitConfig, stage_names, stage_settings
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import Training
from brainunet.weights import Weights
from tests.support.cases import write_case
from tests.support.nets import network
from tests.support.prepared import prepared_case
from tests.support.simulation import Ended, run

ROOT = Path(__file__).resolve().parents[2]
IDS = [f"BraTS-SSA-{number:05d}-000" for number in (2, 3, 110, 111, 123, 124)]
TINY = (
    *("--preset", "brainunet-nano", "--set", "train.patch=[16,16,16]", "--set", "train.batch_size=1"),
    *("--set", "train.precision=fp32", "--set", "train.steps=6", "--set", "score_every=4"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for case in IDS:
        write_case(folder, case)
    return folder


def trained(data: Path, out: Path, *arguments: str) -> Ended:
    return run(brainunet, "train", "--data", data, "--out", out, *TINY, *arguments)


def summary_of(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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


def test_the_same_seed_gives_the_same_model_and_another_seed_another(data: Path, tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert trained(data, tmp_path / name, "--seed", seed, "--validation", "none").code == 0
        digests.append(read_model(tmp_path / name / "last.safetensors")[1].weights_sha256)

    assert digests[0] == digests[1] != digests[2]


DIES_AFTER = """
import os, signal, sys
import brainunet.study.fit as fit_module
from brainunet.cli import main

last = int(sys.argv.pop(1))
take_step = fit_module.take_step

def step(training, rate):
    take_step(training, rate)
    if training.done == last:
        os.kill(os.getpid(), signal.SIGKILL)

fit_module.take_step = step
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 5])
def test_killed_at_any_step_it_goes_on_to_the_same_model(at: int, data: Path, tmp_path: Path) -> None:
    assert trained(data, tmp_path / "whole", "--validation", IDS[0]).code == 0
    arguments = ["train", "--data", str(data), "--out", str(tmp_path / "cut"), *TINY, "--validation", IDS[0]]
    killed = subprocess.run([sys.executable, "-c", DIES_AFTER, str(at), *arguments], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()

    ended = run(brainunet, "train", "--out", tmp_path / "cut", "--resume")

    assert ended.code == 0, ended.err
    models = [read_model(tmp_path / name / "last.safetensors")[1].weights_sha256 for name in ("whole", "cut")]
    assert models[0] == models[1]
    losses = [rows_of(tmp_path / name / "loss.csv") for name in ("whole", "cut")]
    assert losses[0] == losses[1]


def test_a_resume_keeps_to_its_cases_and_is_refused_without_them(data: Path, tmp_path: Path) -> None:
    cases, out = tmp_path / "cases", tmp_path / "out"
    shutil.copytree(data, cases)
    assert trained(cases, out, "--validation", IDS[0]).code == 0
    before = (out / "split.json").read_text(), read_model(out / "last.safetensors")[1].weights_sha256

    write_case(cases, "BraTS-SSA-00125-000")
    assert run(brainunet, "train", "--out", out, "--resume").code == 0  # a case that came since
    assert before == ((out / "split.json").read_text(), read_model(out / "last.safetensors")[1].weights_sha256)

    seg = cases / IDS[1] / f"{IDS[1]}-seg.nii.gz"
    seg.write_bytes(b"")
    kept = (out / "training.ckpt").read_bytes()
    ended = run(brainunet, "train", "--out", out, "--resume")
    assert ended.code == 3
    assert f"it was begun with {IDS[1]}, which is not there any more ({seg.name}: 0 bytes" in ended.err
    assert (out / "training.ckpt").read_bytes() == kept

    for content in ("[]", "", "[" * 100_000, '{"train": 3, "validation": []}'):
        (out / "split.json").write_text(content)
        assert "no split of cases" in run(brainunet, "train", "--out", out, "--resume").err


def test_a_resume_from_another_model_is_refused_and_the_state_stays(data: Path, tmp_path: Path) -> None:
    start, out = tmp_path / "start.safetensors", tmp_path / "out"
    shutil.copy(STARTER, start)
    arguments = ("--data", data, "--out", out, "--init", start, "--validation", "none", *TINY[2:])
    assert run(brainunet, "train", *arguments).code == 0
    kept = (out / "training.ckpt").read_bytes()

    weights, card = read_model(STARTER)
    write_model(start, Weights.of({name: array + 1 for name, array in weights.as_dict().items()}), card)
    ended = run(brainunet, "train", "--out", out, "--resume")

    assert ended.code == 4
    assert "training.ckpt: a training begun from another model" in ended.err
    assert (out / "training.ckpt").read_bytes() == kept


def fitted(tmp_path: Path, **settings: Any) -> tuple[int, str, list[Scored]]:
    train = TrainConfig(steps=40, patch=(16, 16, 16), batch_size=1, precision="fp32", learning_rate=1e-12)
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


def test_the_rates_told_are_those_of_the_steps_across_a_resume(tmp_path: Path) -> None:
    train = TrainConfig(steps=4, patch=(16, 16, 16), batch_size=1, precision="fp32", schedule="poly", learning_rate=1.0e-9)
    checkpoint = Checkpoint(tmp_path / "c.ckpt", "this")
    told: list[float] = []

    def stopped(training: Training, share: float) -> None:
        told.append(training.optimizer.param_groups[0]["lr"])
        if len(told) == 3:
            raise KeyboardInterrupt

    def go_on(on_step: Callable[[Training, float], None]) -> Fitted:
        config = FitConfig(train=train, minutes=0.01, score_every=2)
        return fit(network(), [prepared_case()], [], config, checkpoint=checkpoint, on_step=on_step)

    with pytest.raises(KeyboardInterrupt):
        go_on(stopped)
    del told[2:]  # after the last state that was kept
    made = go_on(lambda training, share: told.append(training.optimizer.param_groups[0]["lr"]))

    assert made.rates == tuple(told)
    assert len(made.rates) == len(made.losses)
    assert sorted(made.rates, reverse=True) == list(made.rates)
    assert made.scores[-1].seconds >= 0.6  # those before the kill count


def test_a_finished_training_taken_up_again_is_finished(tmp_path: Path) -> None:
    first, again = fitted(tmp_path), fitted(tmp_path)

    assert first[0] == again[0] == 40
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
    [
        (2, [], (), "phantoms"),
        (1, IDS[:1], (), "phantoms and real cases"),
        (0, IDS[:2], (), "real cases"),
        (0, IDS[:2], ("--phantoms",), "phantoms"),
    ],
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


def test_a_training_begun_earlier_is_gone_on_with_or_overwritten_but_never_by_accident(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert trained(data, out, "--validation", "none").code == 0

    ended = trained(data, out, "--validation", "none")
    assert (ended.code, "--resume" in ended.err, "--overwrite" in ended.err) == (2, True, True)
    assert trained(data, out, "--validation", "none", "--overwrite", "--seed", "3").code == 0
    assert saved_study(out, "training").config.seed == 3


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "[" * 100_000, '{"training": {"data": null}, "crossval": [1]}'])
@pytest.mark.parametrize("command", ["train", "crossval"])
def test_a_resume_where_nothing_was_begun_is_refused(command: str, content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)

    ended = run(brainunet, command, "--out", tmp_path, "--resume")

    assert (ended.code, "Start it first" in ended.err) == (4, True), ended.err


@pytest.mark.parametrize(
    ("command", "what", "extra", "named"),
    [
        ("train", "training", ("--minutes", "9"), "--minutes"),
        ("train", "training", ("--set", "train.steps=1", "--seed", "42"), "--set, --seed"),
        ("crossval", "crossval", ("--by", "fold"), "--by"),
    ],
)
def test_a_resume_with_other_options_is_refused_and_names_them(
    command: str, what: What, extra: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    keep_study(Study(tmp_path, tmp_path / "gone", FitConfig()), what)

    ended = run(brainunet, command, "--out", tmp_path, "--resume", "--json", *extra)

    assert ended.code == 2, ended.err
    assert f"--resume: it came with {named}, but expected only --out" in ended.err


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


def test_crossval_taken_up_again_does_nothing_twice(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(brainunet, "crossval", "--folds", "2", "--data", data, "--out", out, *TINY).code == 0
    before = (out / "folds" / "fold-1" / "last.safetensors").stat().st_mtime_ns

    ended = run(brainunet, "crossval", "--out", out, "--resume")

    assert ended.code == 0, ended.err
    assert (out / "folds" / "fold-1" / "last.safetensors").stat().st_mtime_ns == before
    assert "all cases" in ended.out


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
