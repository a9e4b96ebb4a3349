"""The three building blocks of BrainUNet: residual block, attention gate, normalisation."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from brainunet.model.activations import Frugal

MAX_GROUPS = 8
MIN_CHANNELS_PER_GROUP = 4


def norm_layer(kind: str, channels: int) -> nn.Module:
    """A normalisation with a scale and an offset per channel, so that every kind has the same parameter count.

    ``group`` (Wu and He, ECCV 2018, arXiv:1803.08494) needs no batch and leaks nothing between patients; ``batch`` is the
    paper's; ``instance`` is one group per channel.
    """
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    if kind == "instance":
        return nn.InstanceNorm3d(channels, affine=True)
    if kind == "group":
        return nn.GroupNorm(max(1, min(MAX_GROUPS, channels // MIN_CHANNELS_PER_GROUP)), channels)
    raise ValueError(f"norm {kind!r} is none of group, batch, instance")


class ResidualBlock(Frugal):
    """Twice (conv 3x3x3, norm, ReLU), plus a 1x1x1 convolution of the input, then ReLU: (B, I, X, Y, Z) -> (B, O, X, Y, Z)."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, kernel_size=3, padding=1)
        self.norm1 = norm_layer(norm, outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, kernel_size=3, padding=1)
        self.norm2 = norm_layer(norm, outputs)
        self.shortcut = nn.Conv3d(inputs, outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)  # first, so that its gradient, as large as x, is made last
        inner = self.run(partial(_layer, self.conv1, self.norm1), x)
        inner = self.run(partial(_layer, self.conv2, self.norm2), inner)
        return F.relu(inner + shortcut, inplace=True)


def _layer(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    return F.relu(norm(conv(x)), inplace=True)


class AttentionGate(Frugal):
    """Additive attention on a skip connection (Oktay et al., "Attention U-Net", MIDL 2018, arXiv:1804.03999).

    gate and skip (B, C, X, Y, Z) -> skip * psi with psi (B, 1, X, Y, Z) in 0..1. The gate is the decoder's map after
    upsampling, so no resampling happens here.
    """

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        half = channels // 2
        self.gate_conv = nn.Conv3d(channels, half, kernel_size=1)
        self.gate_norm = norm_layer(norm, half)
        self.skip_conv = nn.Conv3d(channels, half, kernel_size=1)
        self.skip_norm = norm_layer(norm, half)
        self.psi_conv = nn.Conv3d(half, 1, kernel_size=1)
        self.psi_norm = norm_layer(norm, 1)

    def forward(self, gate: Tensor, skip: Tensor) -> Tensor:
        return self.run(self._gated, gate, skip)

    def _gated(self, gate: Tensor, skip: Tensor) -> Tensor:
        mixed = F.relu(self.gate_norm(self.gate_conv(gate)) + self.skip_norm(self.skip_conv(skip)), inplace=True)
        psi: Tensor = self.psi_norm(self.psi_conv(mixed))
        return skip * psi.sigmoid()
