"""Draws of cases and noise: of the right size, repeated only by a seed."""

from __future__ import annotations

import pytest
import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler

from brainunet.training.case_by_case import draw
from brainunet.training.chance import Chance


def test_draws_are_those_of_the_sampler_of_opacus() -> None:
    seed = Chance(seed=9).seed()
    generator = torch.Generator().manual_seed(seed)
    theirs = next(iter(UniformWithReplacementSampler(num_samples=50, sample_rate=0.3, generator=generator, steps=1)))

    assert draw(50, 0.3, Chance(seed=9)) == theirs


@pytest.mark.parametrize("system", [False, True])
def test_each_case_is_drawn_with_its_rate_and_some_steps_draw_none(system: bool) -> None:
    chance = Chance(system=True) if system else Chance(seed=2)
    draws = [draw(5, 0.2, chance) for _ in range(2000)]

    assert sum(map(len, draws)) / 10_000 == pytest.approx(0.2, abs=0.02)  # five deviations of the mean
    assert sum(not drawn for drawn in draws) / 2000 == pytest.approx(0.8**5, abs=0.06)
    assert all(sum(case in drawn for drawn in draws) > 300 for case in range(5))
    assert draw(5, 1.0, chance) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("chance", [Chance(seed=1), Chance(), Chance(system=True)])
def test_noise_is_normal_with_the_deviation_asked_for(chance: Chance) -> None:
    noise = chance.normal_like(torch.zeros(100, 1000), 3.0).double()

    assert float(noise.mean()) == pytest.approx(0, abs=0.05)
    assert float(noise.std()) == pytest.approx(3, rel=0.01)
    assert float((noise.abs() < 3).double().mean()) == pytest.approx(0.6827, abs=0.01)
    assert float((noise.abs() > 9).double().mean()) == pytest.approx(0.0027, abs=0.001)
    assert chance.normal_like(torch.zeros(3), 0.0).tolist() == [0, 0, 0]


def test_noise_lies_in_memory_as_what_it_is_added_to() -> None:
    like = torch.zeros(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d)

    noise = Chance(seed=1).normal_like(like, 1.0)

    assert noise.stride() == like.stride()
    assert len(set(noise.flatten().tolist())) == like.numel()


def test_what_must_not_repeat_takes_no_seed() -> None:
    with pytest.raises(ValueError, match="must not repeat"):
        Chance(system=True, seed=1)
