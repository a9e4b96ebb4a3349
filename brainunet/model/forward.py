"""One forward pass whose failure says what to change."""

from __future__ import annotations

import torch
from torch import nn

from brainunet.errors import ConfigError


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
