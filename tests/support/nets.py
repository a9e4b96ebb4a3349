"""Small networks with known random weights."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, get_args

import pytest
import torch
from torch import nn

from brainunet.config import ModelConfig
from brainunet.model import ARCHITECTURES, build, weights_of
from brainunet.presets import BASELINES
from brainunet.weights import Weights

Norm = Literal["group", "batch", "instance"]
HEAVY = ("nnunet-resenc-m", "nnunet-resenc-l", "mednext-m", "mednext-l")  # even without weights
NORMS: tuple[Norm, ...] = get_args(Norm)


def architectures(*, with_weights: bool = False) -> list[object]:
    """Every (preset, norm) that can be built, for a test's parameters.

    A baseline has one norm and is skipped where its package is not installed. It is slow if it is heavy, or where the test
    makes its weights.
    """
    found: list[object] = [(preset, norm) for preset in ARCHITECTURES if preset not in BASELINES for norm in NORMS]
    for preset, package in BASELINES.items():
        marks = [pytest.mark.slow] if with_weights or preset in HEAVY else []
        if find_spec(package) is None:
            marks.append(pytest.mark.skip(reason=f"{package} is not installed: deploy/set-up-baselines.sh"))
        found.append(pytest.param(preset, "instance", marks=marks))
    return found


def network(preset: str = "brainunet-nano", *, norm: Norm = "group", seed: int = 0) -> nn.Module:
    """A fresh network whose random weights depend on ``seed`` alone; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(ModelConfig(preset=preset, norm=norm))


def weights(*, seed: int = 0) -> Weights:
    """Weights of a nano network."""
    return weights_of(network(seed=seed))


def disturb_norms(made: nn.Module, *, seed: int = 0) -> None:
    """Give every scale, offset and running statistic a value of its own, so that swapping two of them shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in made.state_dict().items():
            if "norm" in name and value.is_floating_point():
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))


def difference(one: nn.Module, other: nn.Module) -> float:
    """The largest by which two numbers in the same place of two networks differ."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)
