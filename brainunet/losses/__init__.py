"""Losses by name. Each takes logits (B, L, X, Y, Z) and truth (B, X, Y, Z) and returns the mean of its per-sample values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from torch import Tensor

from brainunet.config import LossConfig
from brainunet.errors import ConfigError
from brainunet.losses.cross_entropy import CrossEntropy, TverskyPlusCrossEntropy
from brainunet.losses.tversky import Tversky
from brainunet.settings import nearest

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]

LOSSES: Final[Mapping[str, Callable[[LossConfig], Loss]]] = MappingProxyType(
    {
        "tversky": Tversky.from_config,
        "cross_entropy": CrossEntropy.from_config,
        "tversky+cross_entropy": TverskyPlusCrossEntropy.from_config,
    }
)


def loss_from(config: LossConfig) -> Loss:
    """The configured loss.

    Raises:
        ConfigError: a name that LOSSES does not hold.
    """
    try:
        return LOSSES[config.name](config)
    except KeyError:
        raise ConfigError("train.loss.name", found=f"{config.name} is not known ({nearest(config.name, LOSSES)})") from None
