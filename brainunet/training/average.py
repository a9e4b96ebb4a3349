"""A running mean of the weights along a training: steadier than any single step (Polyak and Juditsky, SIAM J. Control 1992)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def average_in(average: dict[str, Tensor] | None, network: nn.Module, decay: float, step: int) -> dict[str, Tensor]:
    """The mean with the network's weights of ``step`` (from 0) folded in; changes ``average`` in place.

    average <- d * average + (1 - d) * weights with d = min(decay, (1 + step) / (10 + step)), so that the random weights of
    the beginning are soon forgotten. Batch norm's statistics are averaged too, its integer counters copied.

    Args:
        average: name -> mean so far; None before the first step.
    """
    state = network.state_dict()
    if average is None:
        return {name: value.detach().clone() for name, value in state.items()}
    towards = 1 - min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, value in state.items():
            if value.is_floating_point():
                average[name].lerp_(value, towards)
            else:
                average[name].copy_(value)
    return average


def averaged(network: nn.Module, average: dict[str, Tensor] | None) -> nn.Module:
    """The network to score: a copy with the mean weights, or ``network`` itself where there are none."""
    if average is None:
        return network
    twin = copy.deepcopy(network)
    twin.load_state_dict(average)
    return twin
