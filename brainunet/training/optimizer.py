"""What takes the steps of a training, and how long each step is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from brainunet.config import TrainConfig


def optimizer_for(parameters: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def learning_rate_at(step: int, config: TrainConfig, progress: float | None = None) -> float:
    """The rate of step ``step`` (from 0): linear warm-up, then the schedule from ``learning_rate`` down.

    "cosine" falls along half a cosine to 0 after the last step, "poly" as (1 - progress)^0.9 (nnU-Net's, Isensee et al. 2021).

    Args:
        progress: the share of the training that is done, where it is not that of ``config.steps`` (a training by the clock).

    >>> config = TrainConfig(steps=10, warmup_steps=2, schedule="cosine", learning_rate=1.0)
    >>> [round(learning_rate_at(step, config), 3) for step in (0, 1, 2, 6)]
    [0.5, 1.0, 1.0, 0.5]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if progress is None:
        progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    left = 1 - min(1.0, progress)
    match config.schedule:
        case "cosine":
            return config.learning_rate * 0.5 * (1 - math.cos(math.pi * left))
        case "poly":
            return config.learning_rate * float(left**0.9)
        case "constant":
            return config.learning_rate
