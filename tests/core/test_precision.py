"""Half precision is taken where it is right, and refused where this processor computes it wrongly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from brainunet.config import TrainConfig
from brainunet.errors import ConfigError
from brainunet.model import weights_of
from brainunet.training.loop import train
from brainunet.training.precision import uses_bf16, wrong_in_bf16
from brainunet.weights import Weights
from tests.support.nets import network
from tests.support.prepared import prepared_case

CPU = torch.device("cpu")
BATCH = (2, 3, 24, 24, 24)
CASES = [prepared_case(seed=seed, tumour_at=(4 + seed, 8, 10)) for seed in range(2)]


def config(**numbers: Any) -> TrainConfig:
    return TrainConfig(**{"steps": 4, "patch": (16, 16, 16), "precision": "fp32", **numbers})


def trained(settings: TrainConfig) -> Weights:
    made = network()
    train(made, CASES, settings, seed=1)
    return weights_of(made)


def assert_near_full_precision(settings: TrainConfig) -> None:
    full, half = trained(settings.model_copy(update={"precision": "fp32"})), trained(settings)

    assert half.is_finite()
    moved = full.minus(weights_of(network())).norm
    assert half.minus(full).norm < 0.7 * moved


def two_slices_are_mixed_up() -> bool:
    """Whether this CPU's bf16 weight gradient takes the second of two slices for the first."""
    image, towards, weight = torch.zeros(1, 16, 2, 2, 2), torch.zeros(1, 16, 2, 2, 2), torch.zeros(16, 16, 3, 3, 3)
    image[:, :, 0] = towards[:, :, 1] = 1
    x, w = image.bfloat16(), weight.bfloat16().requires_grad_(True)
    (gradient,) = torch.autograd.grad(torch.nn.functional.conv3d(x, w, padding=1), w, towards.bfloat16())
    return bool((gradient[:, :, 0, 1, 1] != 4).any())  # 2 x 2 voxels, of which each adds 1 x 1


class WrongInBf16(nn.Conv3d):
    """A convolution whose results, and with them its gradients, are off by a factor in bfloat16."""

    def __init__(self, inputs: int, outputs: int, factor: float) -> None:
        super().__init__(inputs, outputs, kernel_size=1)
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y * self.factor if torch.is_autocast_enabled("cpu") else y


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_half_precision_trains_to_finite_weights_near_those_of_full_precision(precision: str) -> None:
    assert_near_full_precision(config(precision=precision, steps=2, patch=(24, 24, 24)))


def test_precision_is_what_was_asked_for() -> None:
    assert uses_bf16("bf16", CPU, network(), BATCH)
    assert not uses_bf16("fp32", CPU, network(), BATCH)


def test_auto_takes_bf16_where_the_processor_has_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (False, True):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx512_bf16": has})

        assert uses_bf16("auto", CPU, network(), BATCH) is has


@pytest.mark.parametrize("factor", [0.5, math.inf, math.nan])
def test_bf16_with_a_wrong_gradient_is_refused_and_never_taken_by_auto(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    made = network()
    made.head = WrongInBf16(8, 4, factor)

    assert not uses_bf16("auto", CPU, made, BATCH)
    assert not uses_bf16("fp32", CPU, made, BATCH)
    with pytest.raises(ConfigError, match=r"gradient of head over 4 x 4 x 4 voxels wrong.*Set train.precision to auto"):
        uses_bf16("bf16", CPU, made, BATCH)


@pytest.mark.usefixtures("one_thread")  # the fault comes and goes with the number of threads
def test_bf16_over_two_slices_is_right_or_refused() -> None:
    if two_slices_are_mixed_up():
        with pytest.raises(ConfigError, match=r"gradient of encoder\.3\.conv1 over 2 x 2 x 2 voxels wrong"):
            uses_bf16("bf16", CPU, network(), (1, 3, 16, 16, 16))
    else:
        assert_near_full_precision(config(precision="bf16", steps=2))


def test_trying_bf16_touches_neither_the_network_nor_torch_s_generator() -> None:
    made, state = network(norm="batch"), torch.get_rng_state()
    before = weights_of(made).digest

    assert wrong_in_bf16(made, BATCH) is None

    assert weights_of(made).digest == before
    assert made.training
    assert all(parameter.grad is None for parameter in made.parameters())
    assert torch.equal(torch.get_rng_state(), state)
