"""Private training: what it computes is what Opacus computes, and no case can do more than its clip allows."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor, nn

from brainunet.config import AugmentConfig, LossConfig, PrivacyConfig, TrainConfig
from brainunet.errors import ConfigError, PrivacyError
from brainunet.losses import LOSSES, loss_from
from brainunet.privacy.accounting import Charge
from brainunet.training.case_by_case import CaseOptimizer, add_case, draw, finish_step, length_of, require_separate_cases
from brainunet.training.chance import Chance
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.private import begin, take_private_step, train_privately
from tests.support.nets import network
from tests.support.prepared import prepared_case

CONFIG = TrainConfig(steps=3, patch=(16, 16, 16), precision="fp32", augment=AugmentConfig(preset="none"))
PRIVACY = PrivacyConfig(cases_per_step=2)
CASES = [prepared_case((16, 16, 16), seed=seed, tumour_at=(4, 4, 4)) for seed in range(4)]
ALL = Charge(noise=0.0, rate=1.0, steps=3)  # every case, no noise


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv3d(4, 4, 1))


def batch(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 8, 8, 8, generator=generator) * torch.arange(1, size + 1).view(-1, 1, 1, 1, 1)
    return images, torch.randint(0, 4, (size, 8, 8, 8), generator=generator)


def case_optimizer(made: nn.Module, *, clip: float, noise: float = 0.0, batch: int = 3) -> CaseOptimizer:
    sgd = torch.optim.SGD(made.parameters(), lr=0.1)
    optimizer = CaseOptimizer(sgd, noise_multiplier=noise, max_grad_norm=clip, expected_batch_size=batch)
    optimizer.chance = Chance(seed=7)
    return optimizer


def step_by_case(made: nn.Module, optimizer: DPOptimizer, images: Tensor, labels: Tensor) -> None:
    loss_of = loss_from(LossConfig())
    optimizer.zero_grad(set_to_none=True)
    for i in range(len(images)):
        loss_of(made(images[i : i + 1]), labels[i : i + 1]).backward()  # type: ignore[no-untyped-call]
        add_case(optimizer)
    finish_step(optimizer)


def numbers_held(made: nn.Module) -> int:
    """Numbers of all gradients of a network, whatever they are called."""
    names = ("grad", "grad_sample", "summed_grad")
    gradients = [getattr(parameter, name, None) for parameter in made.parameters() for name in names]
    return sum(gradient.numel() for gradient in gradients if gradient is not None)


def difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize("clip", [0.05, 1e3])
@pytest.mark.parametrize("size", [1, 3])
def test_one_backward_for_each_case_gives_the_weights_that_the_hooks_of_opacus_give(clip: float, size: int) -> None:
    images, labels = batch(size)
    ours, theirs = small(), small()
    step_by_case(ours, case_optimizer(ours, clip=clip), images, labels)

    hooked = GradSampleModule(theirs, loss_reduction="mean")
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1)
    optimizer = DPOptimizer(sgd, noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=3)
    optimizer.zero_grad()
    loss_from(LossConfig())(hooked(images.requires_grad_()), labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()

    assert difference(ours, theirs) < 1e-5
    assert difference(ours, small()) > 1e-4  # it was a step


def test_the_nano_network_gives_the_weights_of_the_hooks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    relu = nn.functional.relu
    monkeypatch.setattr(nn.functional, "relu", lambda x, inplace=False: relu(x))  # hooks forbid changes in place
    images, labels = batch(2)
    images, labels = (torch.nn.functional.interpolate(images, scale_factor=2), labels.repeat(1, 2, 2, 2))
    ours, theirs = network(), network()
    step_by_case(ours, case_optimizer(ours, clip=0.5, batch=2), images, labels)
    hooked = GradSampleModule(theirs, loss_reduction="mean")
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1)
    optimizer = DPOptimizer(sgd, noise_multiplier=0.0, max_grad_norm=0.5, expected_batch_size=2)
    loss_from(LossConfig())(hooked(images.requires_grad_()), labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()

    assert difference(ours, theirs) < 1e-5


@pytest.mark.parametrize("size", [0, 1, 5])
def test_the_step_is_never_longer_than_the_clips_of_the_cases_drawn(size: int) -> None:
    images, labels = batch(size) if size else batch(1)
    made, before = small(), small()
    step_by_case(made, case_optimizer(made, clip=0.01), images[:size], labels[:size])

    moved = [(a - b).detach().flatten() for a, b in zip(made.parameters(), before.parameters(), strict=True)]
    assert float(torch.cat(moved).norm()) <= 0.1 * size * 0.01 / 3 * 1.001  # learning rate * cases * clip / batch


def test_a_step_that_drew_no_case_is_noise_alone_of_the_size_that_was_asked_for() -> None:
    made, before = small(), small()
    step_by_case(made, case_optimizer(made, clip=2.0, noise=1.5), *(part[:0] for part in batch(1)))

    moved = torch.cat([(a - b).detach().flatten() for a, b in zip(made.parameters(), before.parameters(), strict=True)])
    assert float(moved.std()) == pytest.approx(0.1 * 1.5 * 2.0 / 3, rel=0.15)


@pytest.mark.parametrize("size", [1, 6])
def test_noise_comes_once_to_a_step_however_many_cases_it_drew(size: int) -> None:
    with_it, without = small(), small()
    step_by_case(with_it, case_optimizer(with_it, clip=2.0, noise=1.5), *batch(size))
    step_by_case(without, case_optimizer(without, clip=2.0), *batch(size))

    pairs = zip(with_it.parameters(), without.parameters(), strict=True)
    assert float(torch.cat([(a - b).detach().flatten() for a, b in pairs]).std()) == pytest.approx(
        0.1 * 1.5 * 2.0 / 3, rel=0.15
    )


def test_a_case_whose_gradient_is_no_number_counts_as_nothing() -> None:
    images, labels = batch(3)
    ill = images.clone()
    ill[1] = float("nan")
    with_it, without = small(), small()
    step_by_case(with_it, case_optimizer(with_it, clip=0.05), ill, labels)
    step_by_case(without, case_optimizer(without, clip=0.05), images[[0, 2]], labels[[0, 2]])

    assert difference(with_it, without) == 0


@pytest.mark.parametrize("value", [0.1, 1e-3, 3e30, float("inf")])
def test_a_gradient_of_millions_of_numbers_is_no_longer_than_its_clip(value: float) -> None:
    """Sums of equal numbers in single precision are off by more than half a percent here."""
    made = nn.Linear(2**22, 2, bias=False)
    optimizer = case_optimizer(made, clip=1.0)
    made.weight.grad = torch.full_like(made.weight, value)
    add_case(optimizer)

    length = float(made.weight.summed_grad.double().norm())  # type: ignore[attr-defined] # which Opacus puts there
    assert length == (pytest.approx(1.0, rel=1e-5) if value < 1 else 0)


def test_the_length_of_gradients_is_theirs_in_whatever_order_they_lie() -> None:
    gradients = [torch.randn(5, 4, 3, 3, 3).to(memory_format=torch.channels_last_3d), torch.randn(40_000).view(200, 200).T]

    assert length_of(gradients) == pytest.approx(float(torch.cat([g.flatten() for g in gradients]).double().norm()), rel=1e-6)
    assert math.isnan(length_of([torch.tensor([1.0, float("nan")])]))


def test_all_patches_of_a_case_are_clipped_as_one() -> None:
    privacy = PRIVACY.model_copy(update={"patches_per_case": 3, "clip": 1e-3})
    training = begin(network(), CASES, CONFIG, privacy, ALL, chance=Chance(seed=1))
    sums: list[float] = []

    def look(optimizer: DPOptimizer) -> None:
        sums.append(float(torch.cat([p.summed_grad.flatten() for p in optimizer.params]).norm()))

    training.optimizer.attach_step_hook(look)
    take_private_step(training, 1e-3)

    assert sums[0] <= 4 * 1e-3 * 1.001  # four cases of three patches each: four clips, not twelve


def test_memory_of_a_step_does_not_grow_with_the_cases_it_draws() -> None:
    images, labels = batch(6)
    made = small()
    optimizer = case_optimizer(made, clip=1.0)
    held: list[int] = []
    for i in range(6):
        loss_from(LossConfig())(made(images[i : i + 1]), labels[i : i + 1]).backward()  # type: ignore[no-untyped-call]
        add_case(optimizer)
        held.append(numbers_held(made))

    assert len(set(held)) == 1


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


def test_two_cases_at_once_are_refused_where_each_is_clipped_by_itself() -> None:
    made = small()
    optimizer = case_optimizer(made, clip=1.0)
    for parameter in made.parameters():
        parameter.grad_sample = torch.zeros(2, *parameter.shape)  # type: ignore[attr-defined]

    with pytest.raises(ValueError, match="2 cases at once"):
        optimizer.step()


def test_what_must_not_repeat_takes_no_seed() -> None:
    with pytest.raises(ValueError, match="must not repeat"):
        Chance(system=True, seed=1)


def test_batch_norm_is_refused_with_the_setting_that_mends_it() -> None:
    with pytest.raises(ConfigError, match=r"BatchNorm3d.*group.*model\.norm = \"group\""):
        begin(network(norm="batch"), CASES, CONFIG, PRIVACY, ALL, chance=Chance())


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_norms_that_see_one_case_at_a_time_are_fine(norm: str) -> None:
    require_separate_cases(network(norm=norm).train(), loss_from(LossConfig()))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_table_takes_each_case_by_itself(name: str) -> None:
    require_separate_cases(small().train(), loss_from(LossConfig(name=name)))


def batch_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """One sum over the whole batch: what users of other programs know as batch Dice."""
    predicted, actual = logits.softmax(1)[:, 1], (truth == 1).float()
    return 1 - 2 * (predicted * actual).sum() / (predicted.sum() + actual.sum() + 1)


@pytest.mark.parametrize(
    "loss", [batch_dice, lambda logits, truth: nn.functional.cross_entropy(logits, truth, reduction="sum")]
)
def test_a_loss_that_couples_the_cases_of_a_batch_is_refused(loss: object) -> None:
    with pytest.raises(ConfigError, match="not the mean of its samples"):
        require_separate_cases(small().train(), loss)  # type: ignore[arg-type]


@pytest.mark.parametrize("cases", [CASES[:1], []])
def test_fewer_cases_than_a_step_draws_are_refused(cases: Sequence[object]) -> None:
    with pytest.raises(PrivacyError, match="at least the 2"):
        begin(network(), cases, CONFIG, PRIVACY, ALL, chance=Chance())  # type: ignore[arg-type]
