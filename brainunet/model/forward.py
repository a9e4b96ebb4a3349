"""One forward pass whose failure says what to change, and the order in memory that suits a network."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from brainunet.errors import ConfigError

# Narrow networks train up to 1.2 times as fast in torch's usual order on a CPU, wide ones 1.1 to 1.2 times as fast with the
# channels last (benchmarks/training_step.py).
WIDE: Final = 32


def memory_order(network: nn.Module, device: torch.device) -> torch.memory_format:
    """How weights and images of this network should lie in memory: the numbers differ by rounding alone."""
    first = next((module for module in network.modules() if isinstance(module, nn.Conv3d)), None)
    narrow = first is None or first.out_channels < WIDE
    return torch.contiguous_format if narrow and device.type == "cpu" else torch.channels_last_3d


def logits_of(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """images (B, C, X, Y, Z) -> logits (B, L, X, Y, Z).

    Raises:
        ConfigError: a patch so small that a norm sees a single voxel.
    """
    try:
        logits: torch.Tensor = network(images)
        return logits
    except ValueError as error:  # of a norm whose channel has shrunk to one voxel
        raise ConfigError(
            "train.patch", found=str(error), expected="a patch that this network can halve", remedy="choose larger sides"
        ) from None


def has_bf16_instructions(device: torch.device) -> bool:
    """Whether arithmetic in bfloat16 is done by the hardware there, and not imitated."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return any(bool(has.get(feature)) for feature in ("avx512_bf16", "amx_bf16", "bf16"))
