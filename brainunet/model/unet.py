"""BrainUNet: a 3D U-Net with residual blocks and attention gates ("Resource-Efficient Glioma Segmentation on Sub-Saharan
MRI", arXiv:2509.09469)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brainunet.model.activations import Frugal, set_activation_checkpointing
from brainunet.model.blocks import AttentionGate, ResidualBlock


class BrainUNet(Frugal):
    """Encoder of ``len(widths) - 1`` levels and a bottleneck, each level half the size of the one above.

    Any size of patch works: sides are padded with zeros to a multiple of ``2 ** (len(widths) - 1)`` and the logits cut back.

    Args:
        inputs: modalities, the channels of the input.
        outputs: labels with the background, the channels of the logits.
        widths: channels of each level from the top; the last is the bottleneck's.
        norm: group | batch | instance.
    """

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], norm: str) -> None:
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)
        self.encoder = nn.ModuleList(ResidualBlock(i, o, norm) for i, o in pairwise([inputs, *widths]))
        upwards = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.ConvTranspose3d(below, width, kernel_size=2, stride=2) for below, width in upwards)
        self.attention = nn.ModuleList(AttentionGate(width, norm) for _, width in upwards)
        self.decoder = nn.ModuleList(ResidualBlock(2 * width, width, norm) for _, width in upwards)
        self.head = nn.Conv3d(widths[0], outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) of normalised intensities -> logits (B, L, X, Y, Z)."""
        size = x.shape[2:]
        missing = [-side % self.stride for side in size]
        if any(missing):
            x = F.pad(x, [pad for extra in reversed(missing) for pad in (0, extra)])
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = self.run(block, x if level == 0 else F.max_pool3d(x, kernel_size=2))
            skips.append(x)
        skips.pop()
        for up, attention, block in zip(self.up, self.attention, self.decoder, strict=True):
            x = self.run(partial(_risen, up, attention, block), x, skips.pop())
        logits: Tensor = self.head(x)
        return logits[:, :, : size[0], : size[1], : size[2]]

    def set_checkpointing(self, on: bool) -> None:
        """A level at a time; in the largest, where memory peaks, also a layer at a time."""
        super().set_checkpointing(on)
        for part in (self.attention[-1], self.decoder[-1]):
            set_activation_checkpointing(part, on)


def _risen(up: nn.Module, attention: nn.Module, block: nn.Module, below: Tensor, skip: Tensor) -> Tensor:
    """One level up: (B, 2 W, X / 2, ...) of the level below and (B, W, X, ...) of the encoder's -> (B, W, X, ...)."""
    x = up(below)
    x = torch.cat([x, attention(x, skip)], dim=1)  # under the same name: what is not needed any more is freed
    risen: Tensor = block(x)
    return risen
