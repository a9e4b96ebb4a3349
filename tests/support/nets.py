"""Small networks with known random weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from brainunet.config import ModelConfig
from brainunet.model import build, weights_of
from brainunet.weights import Weights

Norm = Literal["group", "batch", "instance"]


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
