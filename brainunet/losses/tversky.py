"""Tversky loss: Dice with separate prices for false positives and false negatives.

S. Salehi, D. Erdogmus, A. Gholipour, "Tversky loss function for image segmentation using 3D fully convolutional deep
networks", MLMI 2017, arXiv:1706.05721.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from brainunet.config import LossConfig


@dataclass(frozen=True)
class Tversky:
    """1 - TI per label, weighted over labels, averaged over samples.

    Each sample is scored on its own and then averaged: a batch-wide sum would couple patients, and a gradient that depends
    on two patients can't be clipped per patient (differential privacy needs that).

    Attributes:
        alpha: price of a false positive.
        beta: price of a false negative; beta > alpha favours recall of small tumours.
        weights: one per label, background first; None counts every label but the background alike.
        smooth_voxels: added above and below, so that a label absent from truth and prediction costs 0, not 0/0.
    """

    alpha: float = 0.3
    beta: float = 0.7
    weights: tuple[float, ...] | None = None
    smooth_voxels: float = 1.0

    @classmethod
    def from_config(cls, config: LossConfig) -> Tversky:
        return cls(config.alpha, config.beta, config.weights, config.smooth_voxels)

    def __call__(self, logits: Tensor, truth: Tensor) -> Tensor:
        """logits (B, L, X, Y, Z), truth (B, X, Y, Z) of label numbers -> scalar."""
        predicted = logits.float().softmax(dim=1)
        actual = F.one_hot(truth.long(), logits.shape[1]).movedim(-1, 1).to(predicted.dtype)
        space = (2, 3, 4)
        hit = (predicted * actual).sum(space)
        false_positive = predicted.sum(space) - hit
        false_negative = actual.sum(space) - hit
        missed = self.alpha * false_positive + self.beta * false_negative
        index = (hit + self.smooth_voxels) / (hit + missed + self.smooth_voxels)
        return ((1 - index) * label_weights(self.weights, index)).sum(dim=1).mean()


def label_weights(weights: tuple[float, ...] | None, like: Tensor) -> Tensor:
    """Weights (L,) that add up to 1; None gives every label but the background the same."""
    given = weights or (0.0, *([1.0] * (like.shape[1] - 1)))
    tensor = torch.tensor(given, dtype=like.dtype, device=like.device)
    return tensor / tensor.sum().clamp_min(torch.finfo(like.dtype).tiny)
