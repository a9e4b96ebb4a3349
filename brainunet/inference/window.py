"""Overlapping windows whose logits are blended with Gaussian weights, for images too large for one pass."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

OVERLAP = 0.25
SIGMA = 0.125  # of the window's side, as in nnU-Net (Isensee et al., Nature Methods 2021)


def predict_in_windows(network: nn.Module, image: Tensor, window: tuple[int, int, int]) -> Tensor:
    """image (1, C, X, Y, Z) -> logits (1, L, X, Y, Z), one window (cut to the image's size) at a time."""
    size = image.shape[2:]
    sides = [min(side, whole) for side, whole in zip(window, size, strict=True)]
    weight = _gaussian(sides).to(image)
    total = norm = None
    for corner in itertools.product(*(_starts(whole, side) for whole, side in zip(size, sides, strict=True))):
        x, y, z = (slice(start, start + side) for start, side in zip(corner, sides, strict=True))
        place = (..., x, y, z)
        logits = network(image[place]).float()
        if total is None or norm is None:
            total = logits.new_zeros((1, logits.shape[1], *size))
            norm = logits.new_zeros(size)
        total[place] += logits * weight
        norm[place] += weight
    assert total is not None
    assert norm is not None
    blended: Tensor = total / norm
    return blended


def _starts(whole: int, side: int) -> list[int]:
    if whole <= side:
        return [0]
    steps = -(-(whole - side) // max(1, int(side * (1 - OVERLAP))))
    return [round(i * (whole - side) / steps) for i in range(steps + 1)]


def _gaussian(sides: list[int]) -> Tensor:
    axes = [torch.exp(-0.5 * ((torch.arange(side) - (side - 1) / 2) / (SIGMA * side)) ** 2) for side in sides]
    weight: Tensor = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return weight.clamp_min(1e-3 * float(weight.max()))
