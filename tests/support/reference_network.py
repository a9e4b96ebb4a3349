"""The paper's network a second time, with the names of its authors' state dict: what `brainunet import` is held to.

Written from the facts (keys and shapes in ``tests/core/reference_state_dict.tsv``), apart from ``brainunet.model``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

KEYS = Path(__file__).parents[1] / "core" / "reference_state_dict.tsv"


def listed() -> dict[str, tuple[int, ...]]:
    """Key -> shape, in the list's order."""
    rows = (line.split("\t") for line in KEYS.read_text().splitlines()[1:])
    return {key: () if shape == "scalar" else tuple(map(int, shape.split("x"))) for key, shape, _ in rows}


class DoubleConv(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv3d(before, after, 3, padding=1),
            nn.BatchNorm3d(after),
            nn.ReLU(),
            nn.Conv3d(after, after, 3, padding=1),
            nn.BatchNorm3d(after),
            nn.ReLU(),
        )
        self.residual = nn.Conv3d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.double_conv(x) + self.residual(x))


class Gate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.W_g = nn.Sequential(nn.Conv3d(width, width // 2, 1), nn.BatchNorm3d(width // 2))
        self.W_x = nn.Sequential(nn.Conv3d(width, width // 2, 1), nn.BatchNorm3d(width // 2))
        self.psi = nn.Sequential(nn.Conv3d(width // 2, 1, 1), nn.BatchNorm3d(1), nn.Sigmoid())

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        gated: Tensor = x * self.psi(torch.relu(self.W_g(g) + self.W_x(x)))
        return gated


class ReferenceNetwork(nn.Module):
    """(B, C, X, Y, Z), sides multiples of 8 -> logits (B, 4, X, Y, Z)."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.in_conv, self.down1, self.down2 = DoubleConv(channels, 64), DoubleConv(64, 128), DoubleConv(128, 256)
        self.bottleneck = DoubleConv(256, 512)
        self.up3, self.att3, self.up_conv3 = nn.ConvTranspose3d(512, 256, 2, 2), Gate(256), DoubleConv(512, 256)
        self.up2, self.att2, self.up_conv2 = nn.ConvTranspose3d(256, 128, 2, 2), Gate(128), DoubleConv(256, 128)
        self.up1, self.att1, self.up_conv1 = nn.ConvTranspose3d(128, 64, 2, 2), Gate(64), DoubleConv(128, 64)
        self.out_conv = nn.Conv3d(64, 4, 1)
        self.pool = nn.MaxPool3d(2)

    def forward(self, x: Tensor) -> Tensor:
        s1 = self.in_conv(x)
        s2 = self.down1(self.pool(s1))
        s3 = self.down2(self.pool(s2))
        up = self.up3(self.bottleneck(self.pool(s3)))
        up = self.up2(self.up_conv3(torch.cat([up, self.att3(up, s3)], 1)))
        up = self.up1(self.up_conv2(torch.cat([up, self.att2(up, s2)], 1)))
        logits: Tensor = self.out_conv(self.up_conv1(torch.cat([up, self.att1(up, s1)], 1)))
        return logits


def reference_network(channels: int = 3, *, seed: int = 0) -> ReferenceNetwork:
    """In eval mode, with random weights whose norms have random scales, offsets and running statistics of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ReferenceNetwork(channels).eval()
        for layer in made.modules():
            if isinstance(layer, nn.BatchNorm3d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                assert layer.num_batches_tracked is not None
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.2)
                layer.running_mean.normal_(std=0.2)
                layer.running_var.uniform_(0.5, 1.5)
                layer.num_batches_tracked.fill_(700)
    return made
