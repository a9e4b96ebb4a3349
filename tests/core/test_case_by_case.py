"""One backward for each case gives the step that Opacus gives, and no case can do more than its clip allows."""

from __future__ import annotations

import math

import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from brainunet.config import LossConfig
from brainunet.errors import ConfigError
from brainunet.losses import LOSSES, loss_from
from brainunet.training.case_by_case import CaseOptimizer, add_case, finish_step, length_of, require_separate_cases
from brainunet.training.chance import Chance
from tests.support.nets import difference, network


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


def test_two_cases_at_once_are_refused_where_each_is_clipped_by_itself() -> None:
    made = small()
    optimizer = case_optimizer(made, clip=1.0)
    for parameter in made.parameters():
        parameter.grad_sample = torch.zeros(2, *parameter.shape)  # type: ignore[attr-defined]

    with pytest.raises(ValueError, match="2 cases at once"):
        optimizer.step()


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
