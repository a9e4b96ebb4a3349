"""Single steps of a training: portions of a batch, the running mean of the weights, schedules by the clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brainunet.config import TrainConfig
from brainunet.model import weights_of
from brainunet.training.average import average_in, averaged
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import begin, take_step, train
from brainunet.training.optimizer import learning_rate_at
from tests.support.nets import network
from tests.support.pace import first_fast
from tests.support.prepared import prepared_case

CASES = [prepared_case(seed=seed, tumour_at=(4 + seed, 8, 10)) for seed in range(2)]


def config(**numbers: Any) -> TrainConfig:
    return TrainConfig(**{"steps": 4, "patch": (16, 16, 16), "precision": "fp32", **numbers})


def gradient_and_loss(portions: list[tuple[Tensor, Tensor]]) -> tuple[np.ndarray[Any, Any], float]:
    made = network()
    training = begin(made, CASES, config(accumulate=len(portions), gradient_clip=1e6), seed=0)
    training.batches = (portion for portion in portions)
    take_step(training, rate=0.1)
    return np.concatenate([p.grad.ravel().numpy() for p in made.parameters() if p.grad is not None]), training.losses[0]


def test_two_portions_of_two_make_the_gradient_that_one_batch_of_four_makes() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 16, 16, 16, generator=generator)
    labels = torch.randint(0, 4, (4, 16, 16, 16), generator=generator, dtype=torch.uint8)

    whole, loss = gradient_and_loss([(images, labels)])
    halves, same_loss = gradient_and_loss([(images[:2], labels[:2]), (images[2:], labels[2:])])

    assert same_loss == pytest.approx(loss, rel=1e-5)
    assert np.abs(halves - whole).max() <= 1e-4 * np.abs(whole).max()


def test_portions_go_on_where_those_of_the_step_before_ended() -> None:
    drawn = begin(network(), CASES, config(batch_size=1), seed=5).batches
    one_by_one = [next(drawn)[0] for _ in range(4)]
    in_twos = begin(network(), CASES, config(batch_size=1, accumulate=2), seed=5).batches

    assert all(torch.equal(next(in_twos)[0], image) for image in one_by_one)


@pytest.mark.parametrize("cut_at", first_fast(2, 1, 3))
def test_with_portions_and_a_mean_a_training_cut_off_ends_at_the_same_weights(cut_at: int, tmp_path: Path) -> None:
    settings = config(batch_size=1, accumulate=2, average_decay=0.9)
    checkpoint = Checkpoint(tmp_path / "training.ckpt", "this", every_steps=1)
    whole = network()
    train(whole, CASES, settings, seed=1)
    cut = begin(network(), CASES, settings, seed=1)
    for _ in range(cut_at):
        take_step(cut, learning_rate_at(cut.done, settings))
    cut.save(checkpoint)

    again = network()
    train(again, CASES, settings, seed=1, checkpoint=checkpoint)

    assert weights_of(again).digest == weights_of(whole).digest


def line(value: float) -> nn.Module:
    made = nn.BatchNorm1d(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(value)
        made.running_mean.fill_(value)  # type: ignore[union-attr]
        made.num_batches_tracked.fill_(int(value))  # type: ignore[union-attr]
    return made


def test_the_mean_is_the_one_worked_out_by_hand() -> None:
    average = average_in(None, line(1.0), 0.5, step=0)
    average = average_in(average, line(2.0), 0.5, step=1)  # d = min(0.5, 2 / 11)
    average = average_in(average, line(4.0), 0.5, step=90)  # d = 0.5

    expected = 0.5 * (2 / 11 * 1.0 + 9 / 11 * 2.0) + 0.5 * 4.0
    assert [average[name].item() for name in ("weight", "bias", "running_mean")] == pytest.approx([expected] * 3)
    assert average["num_batches_tracked"].item() == 4


def test_the_mean_changes_what_is_scored_and_not_what_is_trained() -> None:
    made = network()
    training = begin(made, CASES, config(average_decay=0.9), seed=0)
    for _ in range(3):
        take_step(training, 0.01)
    now = weights_of(made).digest

    scored = averaged(made, training.average)

    assert weights_of(made).digest == now != weights_of(scored).digest
    assert averaged(made, None) is made


def test_a_mean_that_keeps_nothing_of_the_past_is_the_last_step() -> None:
    made, plain = network(), network()
    train(made, CASES, config(average_decay=1e-12), seed=1)
    train(plain, CASES, config(), seed=1)

    assert weights_of(made).flat() == pytest.approx(weights_of(plain).flat(), abs=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "poly"])
def test_by_the_clock_the_rate_follows_the_share_that_is_done(schedule: str) -> None:
    settings = config(schedule=schedule, learning_rate=1.0, warmup_steps=2)

    assert learning_rate_at(0, settings, progress=0.7) == 0.5  # still warming up
    whole, half, over = (learning_rate_at(9, settings, progress=share) for share in (0.0, 0.5, 1.5))
    assert whole == 1.0
    assert half == pytest.approx({"constant": 1.0, "cosine": 0.5, "poly": 0.5**0.9}[schedule])
    assert over == (1.0 if schedule == "constant" else 0.0)
