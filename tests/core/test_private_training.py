"""Private training: each step is told before it is taken, and it does all that other training does."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from opacus.optimizers import DPOptimizer
from torch import nn

from brainunet.config import AugmentConfig, PrivacyConfig, TrainConfig
from brainunet.errors import ConfigError, PrivacyError
from brainunet.privacy.accounting import Charge
from brainunet.training.chance import Chance
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.private import begin, take_private_step, train_privately
from tests.support.nets import difference, network
from tests.support.prepared import prepared_case

CONFIG = TrainConfig(steps=3, patch=(16, 16, 16), precision="fp32", augment=AugmentConfig(preset="none"))
PRIVACY = PrivacyConfig(cases_per_step=2)
CASES = [prepared_case((16, 16, 16), seed=seed, tumour_at=(4, 4, 4)) for seed in range(4)]
ALL = Charge(noise=0.0, rate=1.0, steps=3)  # every case, no noise


def test_all_patches_of_a_case_are_clipped_as_one() -> None:
    privacy = PRIVACY.model_copy(update={"patches_per_case": 3, "clip": 1e-3})
    training = begin(network(), CASES, CONFIG, privacy, ALL, chance=Chance(seed=1))
    sums: list[float] = []

    def look(optimizer: DPOptimizer) -> None:
        sums.append(float(torch.cat([p.summed_grad.flatten() for p in optimizer.params]).norm()))

    training.optimizer.attach_step_hook(look)
    take_private_step(training, 1e-3)

    assert sums[0] <= 4 * 1e-3 * 1.001  # four cases of three patches each: four clips, not twelve


def test_every_step_is_told_before_it_is_done_and_what_forbids_it_stops_the_training() -> None:
    made = network()
    order: list[str] = []

    def before(number: int) -> None:
        order.append(f"before {number}")
        if number == 3:
            raise PrivacyError("privacy", found="spent")

    with pytest.raises(PrivacyError):
        train_privately(
            made, CASES, CONFIG, PRIVACY, ALL, before_step=before, chance=Chance(seed=0),
            on_step=lambda step, loss: order.append(f"done {step}"),
        )  # fmt: skip
    assert order == ["before 1", "done 1", "before 2", "done 2", "before 3"]


def test_a_training_that_was_cut_off_tells_the_steps_that_it_takes_again_once_more(tmp_path: Path) -> None:
    told: list[int] = []
    checkpoint = Checkpoint(tmp_path / "training.ckpt", "a round", every_steps=2)

    def before(number: int) -> None:
        told.append(number)
        if len(told) == 4:  # killed in step 4, after the save of step 2 and the end of step 3
            raise KeyboardInterrupt

    long = Charge(noise=1.0, rate=0.5, steps=4)
    with pytest.raises(KeyboardInterrupt):
        train_privately(network(), CASES, CONFIG, PRIVACY, long, before_step=before, chance=Chance(), checkpoint=checkpoint)
    train_privately(network(), CASES, CONFIG, PRIVACY, long, before_step=told.append, chance=Chance(), checkpoint=checkpoint)

    assert told == [1, 2, 3, 4, 3, 4]


def test_a_seed_repeats_a_training_and_without_one_no_two_are_alike() -> None:
    def trained(chance: Chance) -> nn.Module:
        made = network()
        charge = Charge(noise=1.0, rate=0.5, steps=1)
        train_privately(made, CASES, CONFIG, PRIVACY, charge, before_step=lambda number: None, chance=chance)
        return made

    first = trained(Chance(seed=3))
    assert difference(first, trained(Chance(seed=3))) == 0
    assert difference(first, trained(Chance(seed=4))) > 0
    assert difference(trained(Chance()), trained(Chance())) > 0
    assert difference(trained(Chance(system=True)), first) > 0


def test_averages_augmentation_and_the_pull_to_the_received_weights_go_with_privacy() -> None:
    received = network()
    config = CONFIG.model_copy(update={"average_decay": 0.9, "augment": AugmentConfig(preset="light")})

    def after(mu: float) -> float:
        made = copy.deepcopy(received)
        train_privately(
            made, CASES, config, PRIVACY, ALL, before_step=lambda number: None, chance=Chance(seed=5), proximal_mu=mu
        )
        return difference(made, received)

    assert 0 < after(50.0) < after(0.0)


def test_batch_norm_is_refused_with_the_setting_that_mends_it() -> None:
    with pytest.raises(ConfigError, match=r"BatchNorm3d.*group.*model\.norm = \"group\""):
        begin(network(norm="batch"), CASES, CONFIG, PRIVACY, ALL, chance=Chance())


@pytest.mark.parametrize("cases", [CASES[:1], []])
def test_fewer_cases_than_a_step_draws_are_refused(cases: Sequence[object]) -> None:
    with pytest.raises(PrivacyError, match="at least the 2"):
        begin(network(), cases, CONFIG, PRIVACY, ALL, chance=Chance())  # type: ignore[arg-type]
