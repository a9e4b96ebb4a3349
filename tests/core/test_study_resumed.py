"""A training that goes on: after a kill to the same model, with the cases and the settings it was begun with, or not at all."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brainunet.cli import main as brainunet
from brainunet.config import TrainConfig
from brainunet.modelfile import read_model, write_model
from brainunet.starter import STARTER
from brainunet.study.fit import Fitted, fit
from brainunet.study.run import Study, What, keep_study, saved_study
from brainunet.study.settings import FitConfig
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import Training
from brainunet.weights import Weights
from tests.support.cases import write_case
from tests.support.nets import network
from tests.support.prepared import prepared_case
from tests.support.simulation import run
from tests.support.trainings import IDS, TINY, rows_of, trained, write_cases

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("data"))


DIES_AFTER = """
import os, signal, sys
import brainunet.study.fit as fit_module
from brainunet.cli import main

last = int(sys.argv.pop(1))
take_step = fit_module.take_step

def step(training, rate, **options):
    take_step(training, rate, **options)
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


@pytest.mark.slow
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


@pytest.mark.slow
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
