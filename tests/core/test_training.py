"""What training promises: it repeats to the bit, survives being killed, learns, and says so when it can't."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainunet.config import AugmentConfig, LossConfig, TrainConfig
from brainunet.errors import ConfigError
from brainunet.model import weights_of
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import Trained, TrainingDivergedError, train
from brainunet.training.optimizer import learning_rate_at
from brainunet.training.seeds import derive
from tests.support.nets import network
from tests.support.pace import first_fast
from tests.support.prepared import prepared_case
from tests.support.short_trainings import CASES, PowerCutError, config, cut_after, trained

ROOT = Path(__file__).resolve().parents[2]


def test_the_same_seed_gives_the_same_weights_to_the_bit_whatever_ran_before() -> None:
    first = trained(config(batch_size=2))
    torch.rand(3)
    np.random.default_rng(0).random(3)

    assert trained(config(batch_size=2)).digest == first.digest
    assert trained(config(batch_size=2), seed=2).digest != first.digest


def test_training_leaves_torch_s_generator_where_it_was() -> None:
    made, state = network(), torch.get_rng_state()

    train(made, CASES, config(steps=1), seed=0)

    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("cut_at", "optimizer"), first_fast((3, "adamw"), *product((1, 2), ("adam", "adamw")), (3, "adam")))
def test_a_training_cut_off_and_taken_up_again_ends_at_the_same_weights(cut_at: int, optimizer: str, tmp_path: Path) -> None:
    settings = config(optimizer=optimizer, schedule="cosine", warmup_steps=1)
    checkpoint = Checkpoint(tmp_path / "training.ckpt", "this training", every_steps=2)
    whole = network()
    expected = train(whole, CASES, settings, seed=1, proximal_mu=0.1)

    with pytest.raises(PowerCutError):
        train(network(), CASES, settings, seed=1, proximal_mu=0.1, checkpoint=checkpoint, on_step=cut_after(cut_at))
    again, steps = network(), list[int]()
    result = train(
        again,
        CASES,
        settings,
        seed=1,
        proximal_mu=0.1,
        checkpoint=checkpoint,
        on_step=lambda done, loss: steps.append(done),
    )

    assert steps == ([1, 2, 3, 4] if cut_at <= 2 else [3, 4])  # step 2 is told before it is saved
    assert weights_of(again).digest == weights_of(whole).digest
    assert result.losses == expected.losses


KILLED = """
import os, signal, sys
from pathlib import Path
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import train
from tests.support.short_trainings import CASES, config
from tests.support.nets import network

def on_step(done, loss):
    if done == 6:
        os.kill(os.getpid(), signal.SIGKILL)

train(network(), CASES, config(steps=8), seed=1, checkpoint=Checkpoint(Path(sys.argv[1]), "killed", 4), on_step=on_step)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_a_training_killed_in_the_middle_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    steps = list[int]()

    taken_up = trained(config(steps=8), checkpoint=Checkpoint(path, "killed", 4), on_step=lambda done, loss: steps.append(done))

    assert steps == [5, 6, 7, 8]
    assert taken_up.digest == trained(config(steps=8)).digest


def test_the_loss_falls_and_the_tumour_is_learnt() -> None:
    result = train(network(), CASES, config(steps=60, learning_rate=3e-3), seed=0)

    assert len(result.losses) == 60
    assert result.mean_loss == pytest.approx(sum(result.losses) / 60)
    assert np.mean(result.losses[-8:]) < 0.6 * np.mean(result.losses[:8])


def test_a_strong_proximal_pull_keeps_the_weights_near_those_received() -> None:
    def distance(mu: float) -> float:
        return trained(config(steps=8, weight_decay=0), proximal_mu=mu).minus(weights_of(network())).norm

    assert distance(1000.0) < 0.5 * distance(0.0)


def test_batch_norm_keeps_statistics_that_training_moves() -> None:
    made = network(norm="batch")
    before = weights_of(made)

    train(made, CASES, config(steps=2, batch_size=2), seed=0)

    moved = weights_of(made).minus(before)
    assert all(moved[name].any() for name in moved.names if "running" in name)


def test_weights_come_out_in_the_plain_order_of_memory() -> None:
    assert all(array.flags.c_contiguous for array in trained(config(steps=1)).arrays)


@pytest.mark.parametrize(
    ("settings", "image"),
    [(config(steps=6, learning_rate=1e30), 0.0), (config(steps=1), np.nan), (config(steps=1), np.inf)],
    ids=["a rate of 1e30", "a NaN in the image", "infinity in the image"],
)
@pytest.mark.parametrize("loss", ["tversky", "cross_entropy", "tversky+cross_entropy"])
def test_a_loss_that_is_no_number_ends_the_training_with_words(settings: TrainConfig, image: float, loss: str) -> None:
    case = prepared_case((16, 16, 16))
    case.image[0, 8, 8, 8] = image
    settings = settings.model_copy(update={"loss": LossConfig(name=loss)})

    with pytest.raises(TrainingDivergedError, match=r"training, step \d.*expected finite numbers\. Lower train.learning_rate"):
        train(network(), [case], settings, seed=0)


def test_a_diverged_step_is_not_taken() -> None:
    made, case = network(), prepared_case((16, 16, 16))
    case.image[:] = np.nan

    with pytest.raises(TrainingDivergedError):
        train(made, [case], config(), seed=0)

    assert weights_of(made).digest == weights_of(network()).digest


def test_what_cannot_be_trained_is_refused_with_words() -> None:
    with pytest.raises(ConfigError, match="no labelled case"):
        train(network(), [], config(), seed=0)
    with pytest.raises(ConfigError, match="did you mean tversky"):
        train(network(), CASES, config(loss=LossConfig(name="tverky")), seed=0)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_patch_that_leaves_a_norm_one_voxel_is_refused_with_words(norm: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.patch: .*Choose larger sides"):
        train(network("brainunet-fast", norm=norm), CASES, config(batch_size=1), seed=0)


def test_without_augmentation_or_with_all_of_it_training_runs() -> None:
    still = AugmentConfig(flip_probability=0, affine_probability=0, gamma_probability=0)
    lively = AugmentConfig(flip_probability=1, affine_probability=1, gamma_probability=1)

    assert trained(config(augment=still)).digest != trained(config(augment=lively)).digest


def test_the_rate_warms_up_and_then_stays() -> None:
    settings = config(steps=6, warmup_steps=3, learning_rate=0.3)

    assert [learning_rate_at(step, settings) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.3, 0.3])


def test_the_rate_falls_along_half_a_cosine_to_nothing() -> None:
    settings = config(steps=4, schedule="cosine", learning_rate=2.0)

    expected = [1 + math.cos(math.pi * quarter / 4) for quarter in range(5)]
    assert [learning_rate_at(step, settings) for step in range(5)] == pytest.approx(expected, abs=1e-12)


@given(
    steps=st.integers(1, 50),
    warmup=st.integers(0, 60),
    schedule=st.sampled_from(["constant", "cosine"]),
)
def test_the_rate_is_never_above_the_configured_one_nor_nothing(steps: int, warmup: int, schedule: str) -> None:
    settings = config(steps=steps, warmup_steps=warmup, schedule=schedule, learning_rate=0.5)

    assert all(0 < learning_rate_at(step, settings) <= 0.5 for step in range(steps))


def test_seeds_for_two_purposes_differ_and_fit_every_generator() -> None:
    seeds = {derive(seed, name, step) for seed in range(3) for name in ("patches", "augment") for step in range(20)}

    assert len(seeds) == 120
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(1, 23) != derive(12, 3)


def test_the_mean_loss_is_that_of_all_steps_those_before_a_cut_too() -> None:
    assert Trained((1.0, 2.0, 6.0)).mean_loss == 3.0
